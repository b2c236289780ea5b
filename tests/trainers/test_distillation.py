"""On-policy distillation: a student learns from a teacher on its own completions, and resumes exactly."""

import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from taught_checks import (
    LENGTH,
    check_evaluating_changes_nothing,
    check_learning,
    check_resuming,
    make,
)
from tiny_language import WORDS, make_model
from trainshed.config.trainers.distillation import DistillationParameters
from trainshed.errors import ConfigError, DataError


def test_it_learns_and_what_is_saved_loads(tmp_path):
    check_learning("distillation", tmp_path)


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    check_resuming("distillation", tmp_path)


def test_evaluating_changes_nothing():
    check_evaluating_changes_nothing("distillation", disable_dropout=False)


def test_it_samples_without_dropout():
    model = make_model(seed=3)
    trainer = make("distillation", model=model, max_steps=2, save_strategy="no")
    seen, generate = [], model.generate

    def note(*args, **kwargs):
        seen.append(model.training)
        return generate(*args, **kwargs)

    model.generate = note
    trainer.train()
    assert seen == [False, False]


def test_evaluation_is_over_tokens_however_it_is_batched_and_the_same_each_time():
    trainer = make("distillation", per_device_eval_batch_size=64)
    assert trainer.evaluate() == trainer.evaluate()


def test_positions_are_counted_from_the_first_token_of_a_prompt(tmp_path):
    """A model that learns a vector for each position gives the same states however much stands before."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = GPT2LMHeadModel(config).eval()
    trainer = make("distillation", model=model, max_steps=1, save_strategy="no")
    loop, found = trainer.make_loop(trainer.make_arguments(trainer.arguments, tmp_path), []), {}
    for padding in (0, 3):
        ids = torch.tensor([[0] * padding + [5, 6, 7, 8]])
        mask = torch.tensor([[0] * padding + [1] * 4])
        found[padding] = loop._get_last_hidden_state(model, ids, mask, 2)
    assert torch.allclose(found[0], found[3], atol=1e-6)
    assert found[0].shape == (1, 2, 16)


def test_completions_that_do_not_fit_are_refused_before_the_training():
    with pytest.raises(ConfigError, match="leave no room in a model that reads 64"):
        make("distillation", **{LENGTH["distillation"]: 64})
    with pytest.raises(DataError, match="the prompt has 80 tokens, and 62 leave room"):
        make("distillation", train=[{"prompt": "n1 " * 80}])
    with pytest.raises(DataError, match="the row has no prompt"):
        make("distillation", train=[{"question": "after n3 is"}])


@pytest.mark.parametrize(
    ("key", "value"), [("beta", 1.5), ("temperature", 0.0), ("max_completion_length", 0)]
)
def test_what_trl_refuses_when_all_is_loaded_is_refused_by_the_configuration(key, value):
    with pytest.raises(ValidationError, match=key):
        DistillationParameters.split({"teacher_name_or_path": "teacher", key: value})
