"""PPO's losses against numbers by hand and, where TRL has the same, against it."""

import math

import pytest
import torch

from trainshed.policy.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    token_entropy,
    token_log_probs,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 2.0, -2.4, True),  # up, and good: no more than 1.2
        (1.5, -2.0, 3.0, False),  # up, and bad: all of it
        (0.5, 2.0, -1.0, False),  # down, and good: all of it
        (0.5, -2.0, 1.6, True),  # down, and bad: no more than 0.8
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, clipped):
    old = torch.tensor([[math.log(0.3)]])
    new = (old + math.log(ratio)).requires_grad_()
    found, was = clipped_policy_loss(new, old, torch.tensor([[advantage]]))
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert was.item() is clipped
    found.sum().backward()
    assert (new.grad.item() == 0) is clipped


def test_the_upper_bound_may_be_higher():
    new, old = torch.tensor([[math.log(1.4)]]), torch.zeros(1, 1)
    found, clipped = clipped_policy_loss(new, old, torch.ones(1, 1), clip_low=0.2, clip_high=0.5)
    assert found.item() == pytest.approx(-1.4)
    assert not clipped.item()


@pytest.mark.parametrize(
    ("value", "returned", "loss", "clipped"),
    [
        (1.1, 2.0, 0.5 * 0.81, False),  # near the old one
        (1.9, 2.0, 0.5 * 0.64, True),  # far from it, towards the return: held at 1.2
        (0.5, 2.0, 0.5 * 2.25, False),  # far from it, the wrong way: all of it
    ],
)
def test_value_loss_by_hand(value, returned, loss, clipped):
    args = torch.tensor([[value]]), torch.tensor([[1.0]]), torch.tensor([[returned]])
    found, was = clipped_value_loss(*args, clip=0.2)
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert was.item() is clipped
    plain, never = clipped_value_loss(*args, clip=None)
    assert plain.item() == pytest.approx(0.5 * (value - returned) ** 2, abs=1e-6)
    assert not never.item()


def test_log_probabilities_and_entropy():
    logits = torch.tensor([[[0.0, math.log(3.0)], [1.0, 1.0]]])
    tokens = torch.tensor([[1, 0]])
    expected = torch.tensor([[math.log(0.75), math.log(0.5)]])
    torch.testing.assert_close(token_log_probs(logits, tokens), expected)
    # at temperature 1/2 the odds are squared
    heated = token_log_probs(logits, tokens, temperature=0.5)
    torch.testing.assert_close(heated, torch.tensor([[math.log(0.9), math.log(0.5)]]))
    told = token_entropy(logits)
    torch.testing.assert_close(
        told, torch.tensor([[-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), math.log(2)]])
    )


def test_the_same_as_trl():
    utilities = pytest.importorskip("trl.trainer.utils")
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=draw)
    tokens = torch.randint(11, (3, 5), generator=draw)
    theirs = utilities.selective_log_softmax(logits, tokens, temperature=0.7)
    torch.testing.assert_close(token_log_probs(logits, tokens, temperature=0.7), theirs)
    torch.testing.assert_close(token_entropy(logits), utilities.entropy_from_logits(logits))
