"""PPO on text: it learns, holds the KL, reports what is true, and resumes to the last bit."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from trainshed.config.trainers.ppo import PPOParameters
from trainshed.errors import ConfigError, DataError
from trainshed.models.causal_lm import LoraSettings, add_lora
from trainshed.models.encoders import weights_hash
from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import ExactMatch
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.ppo import PPOTrainer

SHORT = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 7,
    "learning_rate": 3e-3,
    "logging_steps": 2,
    "save_steps": 2,
}


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


@pytest.fixture
def make(choosing_llama, choosing_tokenizer, choosing_rows):
    """Return a function that makes a trainer over a model of its own."""

    def made(own=None, *, path=None, arguments=None, model=None, rows=None, rewards=None, **more):
        tokenizer = more.pop("tokenizer", choosing_tokenizer)
        eval_rows = more.pop("eval_rows", choosing_rows[1])
        parameters = {"rollout_batch_size": 16, "max_new_tokens": 2, "ppo_epochs": 2, **(own or {})}
        return PPOTrainer(
            copy.deepcopy(choosing_llama) if model is None else model,
            tokenizer,
            choosing_rows[0] if rows is None else rows,
            rewards or WeightedRewards({"exact_match": ExactMatch()}),
            eval_prompts=eval_rows,
            parameters=PPOParameters(**parameters),
            arguments={**SHORT, **(arguments or {})},
            seed=3,
            settings=TrainerSettings(
                directory=path and path / "checkpoints", resume=path is not None, device="cpu"
            ),
            **more,
        )

    return made


def test_it_learns_what_is_right_on_prompts_it_has_not_seen(make):
    arguments = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 200}
    own = {"rollout_batch_size": 128, "ppo_epochs": 4, "kl_coef": 0.02, "missing_eos_penalty": 0.5}
    trainer = make(own, arguments={**arguments, "logging_steps": 20})
    before = trainer.evaluate()
    result = trainer.train()
    after = trainer.evaluate()
    assert before["eval/reward_exact_match"] < 0.5
    assert after["eval/reward_exact_match"] >= 0.9
    # log 3 = 1.1 nats are needed to choose one of three
    assert 0.5 < after["eval/kl"] < 3.0
    assert result.history[-1]["reward/exact_match"] > 0.85
    assert result.history[-1]["ppo/kl"] == pytest.approx(after["eval/kl"], abs=1.0)


def test_with_a_reward_for_nothing_it_stays_where_it_is(make):
    """The baseline that could have won: the same steps, KL and entropy, and no signal."""
    trainer = make({"kl_coef": 0.02}, rewards=lambda prompts, completions, **columns: [1.0] * len(prompts))
    before = trainer.model.lm_head.weight.clone()
    assert trainer.train().steps == 7
    assert not torch.equal(trainer.model.lm_head.weight, before)
    assert trainer.evaluate()["eval/kl"] < 0.5


@pytest.mark.parametrize("step", [1, 3, 5])
@pytest.mark.parametrize("own", [{}, {"kl_target": 0.5, "target_kl": 0.01, "value": "detached"}], ids=str)
def test_killed_and_resumed_ends_the_same(make, tmp_path, step, own):
    whole = make(own, path=tmp_path / "whole")
    expected = whole.train()
    with pytest.raises(OSError, match="killed"):
        make(own, path=tmp_path, callbacks=[KillAt(step)]).train()
    torch.rand(3)
    again = make(own, path=tmp_path)
    assert again.train() == expected
    assert weights_hash(again.module) == weights_hash(whole.module)


def test_the_middle_of_a_rollout_is_resumed_without_a_new_one(make, tmp_path):
    asked = []

    def count(prompts, completions, **columns):
        asked.append(len(prompts))
        return [0.0] * len(prompts)

    # four steps a rollout, killed after the third, the checkpoint after the second
    with pytest.raises(OSError, match="killed"):
        make(path=tmp_path, rewards=count, callbacks=[KillAt(3)]).train()
    assert asked == [16]
    make(path=tmp_path, rewards=count, arguments={"max_steps": 7}).train()
    assert asked == [16, 16]


def test_what_is_reported(make):
    history = make(arguments={"max_steps": 8, "logging_steps": 1}).train().history
    first = history[0]
    assert first["ppo/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert first["ppo/clip_fraction"] == 0
    assert first["ppo/kl"] == pytest.approx(0, abs=1e-4)
    assert first["ppo/kl_full"] == pytest.approx(0, abs=1e-4)
    assert first["ppo/score"] == pytest.approx(first["reward/exact_match"])
    assert 0 < first["ppo/entropy"] < torch.tensor(11.0).log()
    assert history[1]["ppo/approx_kl"] > 0
    # a rollout is reported with its first step only: 16 rows, 8 a step, two passes
    assert ["ppo/kl" in row for row in history] == [True, False, False, False] * 2
    assert history[4]["ppo/kl_full"] > 0


def test_the_reported_kl_is_that_of_what_was_sampled(make):
    trainer = make()
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(1.3)
    rows = trainer.eval_data()
    done = trainer.complete(rows, 5)
    found = trainer._scored(done)
    both = []
    for model in (trainer.model, trainer.reference):
        positions = (done.attention_mask.cumsum(1) - 1).clamp(min=0)
        logits = model(done.input_ids, attention_mask=done.attention_mask, position_ids=positions).logits
        log_probs = logits.float().log_softmax(-1)[:, -done.mask.shape[1] - 1 : -1]
        both.append(log_probs.gather(-1, done.tokens[..., None])[..., 0])
    torch.testing.assert_close(found["log_probs"], both[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["ref_log_probs"], both[1], atol=1e-5, rtol=1e-4)
    sampled = ((both[0] - both[1]) * done.mask).sum(1)
    assert trainer._sampled_kl(done) == pytest.approx(sampled.mean().item(), abs=1e-5)
    # both estimates are of one number
    full = (found["kl"] * done.mask).sum(1)
    error = (sampled - full).std() / len(full) ** 0.5
    assert abs(sampled.mean() - full.mean()) < 4 * error


def test_padding_and_batches_do_not_count(make, choosing_rows):
    rows = [{"prompt": "k1 :", "answer": "k1"}, *choosing_rows[0][:7]]
    trainer = make(rows=rows)
    done = trainer.complete(trainer._prompts, 1)
    assert done.input_ids.shape[1] == 4 + done.mask.shape[1]
    together = trainer._scored(done)
    alone = trainer.complete(trainer._prompts[:1], 1)
    ids = torch.cat([alone.input_ids[:, :2], done.tokens[:1]], 1)
    attention = torch.cat([alone.attention_mask[:, :2], done.attention_mask[:1, 4:]], 1)
    with torch.no_grad():
        own, _, values = trainer.module(ids, attention, done.mask.shape[1])
    torch.testing.assert_close(own[0], together["log_probs"][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values[0], together["values"][0], atol=1e-5, rtol=1e-4)


def test_nothing_after_the_end_counts(make):
    done = make().complete(make().eval_data(), 0)
    for tokens, inside, ended in zip(done.tokens.tolist(), done.mask.tolist(), done.ended, strict=True):
        if ended:
            last = tokens.index(1)
            assert inside == [place <= last for place in range(len(tokens))]
            assert set(tokens[last + 1 :]) <= {0}
        else:
            assert all(inside)


def test_a_further_token_may_end_and_not_ending_costs(make):
    trainer = make({"stop_token": "k2", "missing_eos_penalty": 2.0, "max_new_tokens": 1})
    rows = trainer.eval_data()
    done = trainer.complete(rows, 0)
    assert torch.equal(done.ended, (done.tokens[:, 0] == 5) | (done.tokens[:, 0] == 1))
    judged = trainer.judge(rows, done)
    scores = trainer.scores(judged, done)
    expected = torch.tensor(judged.totals) - 2.0 * (~done.ended)
    assert torch.equal(scores, expected)
    with pytest.raises(ConfigError, match="is 2 tokens"):
        make({"stop_token": "k2 k3"})


def test_the_frozen_reference_stays_and_adapters_need_none(make, choosing_llama):
    trainer = make()
    trainer.train()
    assert weights_hash(trainer.reference) == weights_hash(choosing_llama)
    assert weights_hash(trainer.model) != weights_hash(choosing_llama)
    adapted = add_lora(copy.deepcopy(choosing_llama), LoraSettings(r=2), seed=1)
    trainer = make(model=adapted)
    assert trainer.reference is None
    assert trainer.train().metrics["train/steps"] == 7
    assert trainer.evaluate()["eval/kl"] != 0
    with adapted.disable_adapter():
        same = adapted(torch.tensor([[3, 4, 5, 2]])).logits
    torch.testing.assert_close(same, choosing_llama(torch.tensor([[3, 4, 5, 2]])).logits)


def test_adapters_resume_and_their_checkpoint_leaves_the_base_out(make, choosing_llama, tmp_path):
    from safetensors.torch import load_file

    def adapted():
        return add_lora(copy.deepcopy(choosing_llama), LoraSettings(r=2), seed=1)

    whole = make(model=adapted(), path=tmp_path / "whole")
    whole.train()
    with pytest.raises(OSError, match="killed"):
        make(model=adapted(), path=tmp_path, callbacks=[KillAt(3)]).train()
    held = load_file(tmp_path / "checkpoints" / "checkpoint-2" / "model.safetensors")
    assert all("lora_" in name or name.startswith("head.") for name in held)
    again = make(model=adapted(), path=tmp_path)
    again.train()
    assert weights_hash(again.module) == weights_hash(whole.module)


@pytest.mark.parametrize("kind", ["shared", "detached", "separate"])
def test_where_the_value_comes_from(make, kind):
    trainer = make({"value": kind, "clip_range_value": 0.0, "entropy_coef": 0.0})
    policy = trainer.module
    batch = trainer.step_batches(1)[0]
    torch.nn.init.normal_(policy.head.weight)
    _, _, values = policy(batch["input_ids"], batch["attention_mask"], batch["mask"].shape[1])
    values.sum().backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in trainer.model.parameters()]
    assert any(reached) == (kind == "shared")
    if kind == "separate":
        assert any(bool(p.grad.any()) for p in policy.critic.parameters() if p.grad is not None)


def test_a_second_model_beside_adapters_is_refused(make, choosing_llama):
    adapted = add_lora(copy.deepcopy(choosing_llama), LoraSettings(r=2), seed=1)
    with pytest.raises(ConfigError, match="no place beside"):
        make({"value": "separate"}, model=adapted)


def test_a_rollout_is_left_when_the_policy_has_moved_too_far(make):
    seen = []

    def count(prompts, completions, **columns):
        seen.append(len(prompts))
        return [float(i % 2) for i in range(len(prompts))]

    make({"target_kl": 1e-9}, rewards=count, arguments={"max_steps": 4}).train()
    # the first step of a rollout moves nothing yet; the second finds the policy too far
    assert len(seen) == 2


def test_the_coefficient_follows_its_target(make):
    trainer = make({"kl_target": 100.0, "kl_coef": 0.1}, arguments={"max_steps": 8, "logging_steps": 4})
    history = trainer.train().history
    told = [row["ppo/kl_coef"] for row in history if "ppo/kl_coef" in row]
    assert told == pytest.approx([0.1, 0.1 * 0.98], rel=1e-6)


def test_it_is_saved_as_a_language_model(make, tmp_path):
    trainer = make()
    trainer.train()
    trainer.save(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[3, 4, 5, 2]])
    assert torch.equal(loaded(ids).logits, trainer.model(ids).logits)


def test_messages_are_prompts_too(make, choosing_tokenizer):
    tokenizer = copy.deepcopy(choosing_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}:"
    seen = []

    def see(prompts, completions, **columns):
        seen.append((prompts[0], completions[0], sorted(columns)))
        return [0.0] * len(prompts)

    rows = [{"prompt": [{"role": "user", "content": "k1 k2 k3"}], "answer": "k1"}] * 8
    trainer = make(rows=rows, rewards=see, arguments={"max_steps": 1}, tokenizer=tokenizer, eval_rows=rows)
    trainer.train()
    prompt, completion, columns = seen[0]
    assert prompt == rows[0]["prompt"]
    assert completion[0]["role"] == "assistant"
    assert columns == ["answer"]


@pytest.mark.parametrize(
    ("own", "arguments", "rows", "match"),
    [
        ({"rollout_batch_size": 12}, {}, None, "does not divide into optimizer steps of 8"),
        ({"max_new_tokens": 16}, {}, None, "leave no room"),
        ({}, {}, [{"prompt": "k1 " * 20}], "do not fit a model that reads 16"),
        ({}, {}, [{"question": "k1"}], "no prompt, but question"),
        ({}, {}, ["k1 :", {"prompt": [{"role": "user", "content": "k1"}]}], "some prompts are texts"),
    ],
)
def test_what_cannot_be_is_said(make, own, arguments, rows, match):
    with pytest.raises((ConfigError, DataError), match=match):
        make(own, arguments=arguments, rows=rows)


def test_long_prompts_are_cut_when_asked(make, capsys):
    trainer = make({"max_prompt_length": 4}, rows=[{"prompt": "k1 " * 20 + "k2 :"}])
    assert trainer._prompts[0].ids == (4, 4, 5, 2)
    assert "the beginning of 1 of 1 was cut to 4 tokens" in capsys.readouterr().err


def test_nothing_judges():
    with pytest.raises(ConfigError, match="nothing judges"):
        WeightedRewards({})


def test_the_value_learns_what_a_prompt_is_worth(make):
    """Nothing that the policy does changes the reward, so all of it is for the value to explain."""

    def by_prompt(prompts, completions, **columns):
        return [float(prompt.split()[0] in ("k0", "k1", "k2", "k3")) for prompt in prompts]

    arguments = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 160}
    own = {
        "rollout_batch_size": 128,
        "ppo_epochs": 4,
        "vf_coef": 1.0,
        "kl_coef": 0.0,
        "clip_range_value": 0.0,
    }
    history = make(own, rewards=by_prompt, arguments={**arguments, "logging_steps": 8}).train().history
    told = [row["ppo/explained_variance"] for row in history if "ppo/explained_variance" in row]
    assert told[0] == pytest.approx(0.0, abs=1e-6)
    assert told[-1] > 0.5
