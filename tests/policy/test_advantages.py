"""Advantages against numbers by hand and against the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainshed.policy.advantages import (
    explained_variance,
    generalized_advantages,
    masked_mean,
    token_rewards,
    whiten,
)


def test_the_score_stands_at_the_last_token_and_the_penalty_at_each():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    kl = torch.tensor([[0.1, 0.2, 9.0], [0.3, 0.4, 0.5]])
    found = token_rewards(torch.tensor([2.0, -1.0]), kl, mask, 0.5)
    expected = torch.tensor([[-0.05, 1.9, 0.0], [-0.15, -0.2, -1.25]])
    torch.testing.assert_close(found, expected)


def test_advantages_by_hand():
    rewards, values = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.5, 0.25, 7.0]])
    mask = torch.tensor([[True, True, False]])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.9, lam=0.5)
    # delta_1 = 1 - 0.25 = 0.75; delta_0 = 0 + 0.9 * 0.25 - 0.5 = -0.275; A_0 = -0.275 + 0.45 * 0.75 = 0.0625
    torch.testing.assert_close(advantages, torch.tensor([[0.0625, 0.75, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.5625, 1.0, 0.0]]))


@given(st.integers(1, 6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10_000))
def test_advantages_are_the_sum_that_defines_them(length, gamma, lam, seed):
    draw = torch.Generator().manual_seed(seed)
    width = 6
    rewards = torch.randn(1, width, generator=draw).double()
    values = torch.randn(1, width, generator=draw).double()
    mask = torch.arange(width)[None] < length
    found, returns = generalized_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    r, v = rewards[0, :length].tolist(), [*values[0, :length].tolist(), 0.0]
    delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
    for t in range(length):
        wanted = sum((gamma * lam) ** step * delta[t + step] for step in range(length - t))
        assert found[0, t].item() == pytest.approx(wanted, abs=1e-9)
        assert returns[0, t].item() == pytest.approx(wanted + v[t], abs=1e-9)
    assert not found[0, length:].any()


def test_without_discount_and_bootstrap_the_return_is_what_comes():
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    values = torch.tensor([[0.3, -0.2, 0.9]])
    _, returns = generalized_advantages(rewards, values, torch.ones(1, 3, dtype=torch.bool), lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[6.0, 5.0, 3.0]]))


def test_whitening():
    values = torch.tensor([[1.0, 2.0, 100.0], [3.0, 6.0, 100.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    found = whiten(values, mask)
    assert found[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[mask].var().item() == pytest.approx(1, abs=1e-5)
    assert not found[~mask].any()
    kept = whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept[mask], found[mask] + 3.0)
    assert torch.equal(whiten(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool)), torch.zeros(2, 2))
    assert masked_mean(values, mask).item() == 3.0
    assert masked_mean(values, torch.zeros_like(mask)).item() == 0.0


def test_explained_variance():
    returns = torch.tensor([[1.0, 2.0, 3.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(torch.full((1, 4), 2.0), returns, mask).item() == pytest.approx(0.0)
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(1, 4), mask).item() == 0.0
