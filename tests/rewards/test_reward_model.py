"""A reward model as a reward: batches do not count, texts are as it was trained, what is wrong is said."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from trainshed.config.rewards import RewardModelOptions
from trainshed.errors import ConfigError, ModelError
from trainshed.rewards.reward_model import RewardModel


@pytest.fixture(scope="module")
def saved(tmp_path_factory, choosing_tokenizer):
    path = tmp_path_factory.mktemp("reward")
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        num_labels=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(path)
    choosing_tokenizer.save_pretrained(path)
    return path


def test_scores_are_those_of_the_texts_alone(saved):
    reward = RewardModel(RewardModelOptions(batch_size=3), model=str(saved))
    prompts, done = ["k1 k2 :", "k3 :", "k4 k5 k6 :", "k7 :"], [" k1", " k3", "", " k2 k2 k2"]
    found = reward(prompts, done)
    model, tokenizer = reward.model, reward.tokenizer
    for prompt, text, value in zip(prompts, done, found, strict=True):
        ids = torch.tensor([[*tokenizer(prompt + text)["input_ids"], 1]])
        with torch.no_grad():
            assert model(ids).logits[0, 0].item() == pytest.approx(value, abs=1e-5)
    assert len(set(found)) == 4


def test_messages_go_through_the_chat_template(saved, choosing_tokenizer):
    tokenizer = copy.deepcopy(choosing_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} : {% endfor %}"
    plain = RewardModel(RewardModelOptions(add_eos=False), model=str(saved))
    chat = RewardModel(model=plain.model, tokenizer=tokenizer)
    told = chat([[{"role": "user", "content": "k1"}]], [[{"role": "assistant", "content": "k2"}]])
    assert told == pytest.approx(plain(["k1 : "], ["k2 :"]))


def test_the_beginning_of_a_long_text_is_cut(saved):
    reward = RewardModel(RewardModelOptions(max_length=3), model=str(saved))
    assert reward(["k1 k2 k3 k4"], [" k5"]) == pytest.approx(reward(["k7 k4"], [" k5"]))


def test_what_is_no_reward_model(saved, tmp_path, random_llama, tokenizer):
    with pytest.raises(ConfigError, match="no reward model is named"):
        RewardModel()
    with pytest.raises(ModelError, match="cannot be loaded"):
        RewardModel(model=str(tmp_path / "none"))
    random_llama.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(ModelError, match=r"no weights for score\.weight"):
        RewardModel(model=str(tmp_path / "lm"))
    two = LlamaForSequenceClassification.from_pretrained(saved, num_labels=2, ignore_mismatched_sizes=True)
    with pytest.raises(ModelError, match="this one has 2"):
        RewardModel(model=two, tokenizer=tokenizer)
