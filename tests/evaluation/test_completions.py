"""Completions, their KL and what rewards think of them, against the models asked one step at a time."""

import json

import pytest
import torch

from tiny_language import make_model, make_tokenizer, successors
from trainshed.config.rewards import LengthOptions
from trainshed.data.prompts import Prompt
from trainshed.errors import ConfigError, DataError
from trainshed.evaluation.completions import (
    Completion,
    complete_prompts,
    completion_kl,
    judge_completions,
    reward_scores,
)
from trainshed.evaluation.language import LanguageModel
from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import Length

PROMPTS = [Prompt(row["prompt"], {"answer": row["chosen"]}) for row in successors(7)]


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(make_model(), make_tokenizer())


def test_the_likeliest_token_each_time(lm):
    found = complete_prompts(lm, PROMPTS, max_new_tokens=5, batch_size=3)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = lm.tokenizer(prompt.prompt)["input_ids"]
        assert completion.prompt_ids == ids
        said = []
        while len(said) < 5 and (not said or said[-1] != 1):
            with torch.no_grad():
                said.append(int(lm.model(torch.tensor([ids + said])).logits[0, -1].argmax()))
        assert completion.ids == said
        assert completion.ended == (said[-1] == 1)
        assert completion.text == lm.tokenizer.decode(said, skip_special_tokens=True)


def test_the_seed_decides_what_is_sampled(lm):
    one, again, other = (
        complete_prompts(lm, PROMPTS, max_new_tokens=6, temperature=1.0, batch_size=4, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_the_beginning_of_a_long_prompt_is_cut(lm, capsys):
    short = LanguageModel(lm.model, lm.tokenizer, 8)
    (found,) = complete_prompts(short, PROMPTS[:1], max_new_tokens=4)
    assert found.prompt_ids == lm.tokenizer(PROMPTS[0].prompt)["input_ids"][-4:]
    assert "1 of 1 prompts lost their beginning to fit into 4 tokens" in capsys.readouterr().err


def test_what_cannot_be_completed(lm):
    with pytest.raises(ConfigError, match="64 tokens leave no room in the 64"):
        complete_prompts(lm, PROMPTS, max_new_tokens=64)
    with pytest.raises(DataError, match="no prompt"):
        complete_prompts(lm, [], max_new_tokens=4)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_kl_token_by_token(lm, batch_size):
    other = LanguageModel(make_model(1), lm.tokenizer)
    said = complete_prompts(lm, PROMPTS, max_new_tokens=6, temperature=1.0, seed=3)
    found = completion_kl(lm, other, said, batch_size=batch_size)
    for completion, value in zip(said, found, strict=True):
        total, ids = 0.0, list(completion.prompt_ids)
        for token in completion.ids:
            with torch.no_grad():
                p, q = (
                    m.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1) for m in (lm, other)
                )
            total += float((p.exp() * (p - q)).sum())
            ids.append(token)
        assert value == pytest.approx(total, abs=1e-4)
    assert completion_kl(lm, lm, said, batch_size=3) == [0.0] * 7


def test_which_models_speak_of_the_same_tokens(lm):
    more = make_tokenizer()
    more.add_tokens(["new"])
    assert lm.shares_tokens_with(LanguageModel(make_model(1), make_tokenizer()))
    assert not lm.shares_tokens_with(LanguageModel(make_model(1), more))


def test_scores_of_rewards():
    said = [Completion("a b c", [5], [6, 7, 1], True), Completion("", [5], [6, 7], False)]
    prompts = [Prompt("p", {"answer": "x"}), Prompt("q", {})]

    def tokens(prompts, completions, answer, **columns):
        assert answer == ["x", None]
        return [None if not text else 2.0 for text in completions]

    rewards = WeightedRewards(
        {"length": Length(LengthOptions(least=2, most=9, slack=4)), "tokens": tokens}, {"length": 4.0}
    )
    judged = judge_completions(rewards, prompts, said)
    found = reward_scores(("i", "j"), judged, said, kl=[1.0, 3.0])
    assert found.metrics == ["score", "length", "tokens_reward", "kl", "tokens", "unfinished"]
    assert found.values["score"].tolist() == [6.0, 2.0]
    assert found.values["length"].tolist() == [1.0, 0.5]
    # a reward that has nothing to say of a completion leaves it out of its mean
    assert found.mean("tokens_reward") == 2.0
    assert found.interval("tokens_reward").n == 1
    assert [found.mean(name) for name in ("kl", "tokens", "unfinished")] == [2.0, 2.5, 0.5]


def test_conversations_are_answered_by_turns():
    talk = [Prompt([{"role": "user", "content": "hi"}])]
    seen = []

    def see(prompts, completions, **columns):
        seen.append((prompts, completions))
        return [1.0]

    judge_completions(WeightedRewards({"see": see}), talk, [Completion("yes", [1], [2], True)])
    assert seen == [([talk[0].prompt], [[{"role": "assistant", "content": "yes"}]])]


def test_what_is_written_is_read_back():
    said = Completion("a ü", [1, 2], [3], True)
    assert Completion.from_json(json.loads(json.dumps(said.to_json()))) == said
