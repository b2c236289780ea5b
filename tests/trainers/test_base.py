"""What every trainer is, and isolated random state."""

import random

import numpy as np
import pytest
import torch

from trainshed.errors import NotAvailableError
from trainshed.trainers.base import Trainer, TrainerSettings, TrainResult, isolated_random_state


class Nothing(Trainer):
    @classmethod
    def from_run(cls, context):
        return cls(seed=context.config.execution.seed)

    def train(self):
        return TrainResult(0.5, steps=1)

    def evaluate(self):
        return {}

    def save(self, path):
        raise NotImplementedError


def test_result_and_seed():
    trainer = Nothing(seed=3)
    assert trainer.train().loss == 0.5
    state = torch.random.get_rng_state()
    trainer.set_seed(4)
    assert trainer.seed == 4
    assert torch.equal(torch.random.get_rng_state(), state)
    assert trainer.settings == TrainerSettings()


def test_federation_is_not_available():
    with pytest.raises(NotAvailableError, match="not available in this version"):
        Nothing().get_federated_task()


def test_a_trainer_must_say_everything():
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Trainer,), {"train": lambda self: None})()


def test_random_state_comes_back_after_errors_too():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError), isolated_random_state():
        draw()[0] / 0
    assert draw() == expected
