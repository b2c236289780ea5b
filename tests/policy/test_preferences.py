"""BCO, XPO and Nash-MD against numbers by hand, TRL's formula, and a gradient by enumeration."""

import itertools
import math

import pytest
import torch

from trainshed.policy.preferences import (
    bco_loss,
    mixture_logits,
    nash_md_loss,
    preference_loss,
    xpo_loss,
)


def sigma(x):
    return 1 / (1 + math.exp(-x))


def test_bco_by_hand():
    rewards, labels = torch.tensor([1.0, -0.5]), torch.tensor([True, False])
    found = bco_loss(rewards, labels, 0.2)
    assert found.tolist() == pytest.approx([-math.log(sigma(0.8)), -math.log(sigma(0.7))])


def test_bco_without_a_shift_is_the_pair_loss_of_trl():
    """TRL's ``bco_pair`` of DPO: −log σ(r_chosen) − log σ(−r_rejected)."""
    chosen, rejected = torch.tensor([0.3, -1.0]), torch.tensor([0.1, 0.4])
    theirs = -torch.nn.functional.logsigmoid(chosen) - torch.nn.functional.logsigmoid(-rejected)
    ours = bco_loss(chosen, torch.ones(2), 0.0) + bco_loss(rejected, torch.zeros(2), 0.0)
    torch.testing.assert_close(ours, theirs)


def test_xpo_by_hand():
    chosen, rejected, explored = torch.tensor([0.5]), torch.tensor([-0.5]), torch.tensor([-3.0])
    found = xpo_loss(chosen, rejected, explored, beta=0.1, alpha=0.01)
    assert found.item() == pytest.approx(-math.log(sigma(0.1)) - 0.03)
    plain = preference_loss(chosen, rejected, beta=0.1)
    torch.testing.assert_close(xpo_loss(chosen, rejected, explored, beta=0.1, alpha=0.0), plain)


def test_the_mixture_by_hand():
    logits, ref = torch.tensor([0.0, math.log(4.0)]), torch.tensor([0.0, 0.0])
    found = mixture_logits(logits, ref, weight=0.5).softmax(-1)
    # (0.2 * 0.5)^0.5 : (0.8 * 0.5)^0.5 = 1 : 2
    torch.testing.assert_close(found, torch.tensor([1 / 3, 2 / 3]))
    torch.testing.assert_close(mixture_logits(logits, ref, weight=0.0).softmax(-1), logits.softmax(-1))


def test_nash_md_has_the_gradient_of_what_it_maximises():
    """Over all completions of two tokens: E[P(y ≻ y')] − τ KL(π ‖ μ), differentiated exactly."""
    draw = torch.Generator().manual_seed(1)
    first = torch.randn(3, generator=draw, dtype=torch.float64).requires_grad_()
    second = torch.randn(3, 3, generator=draw, dtype=torch.float64).requires_grad_()
    ref_first, ref_second = (
        torch.randn(3, generator=draw).double(),
        torch.randn(3, 3, generator=draw).double(),
    )
    wins = torch.rand(3, 3, generator=draw).double()
    tau = 0.3
    log_p = [first.log_softmax(-1), second.log_softmax(-1)]
    log_q = [ref_first.log_softmax(-1), ref_second.log_softmax(-1)]
    pairs = list(itertools.product(range(3), repeat=2))
    objective = first.new_zeros(())
    surrogate = first.new_zeros(())
    for a, b in pairs:
        own = torch.stack([log_p[0][a], log_p[1][a, b]])[None]
        ref = torch.stack([log_q[0][a], log_q[1][a, b]])[None]
        probability = own.sum().exp()
        objective = objective + probability * (wins[a, b] - tau * (own - ref).sum())
        loss = nash_md_loss(own, ref, torch.ones(1, 2, dtype=torch.bool), wins[a, b][None], tau=tau)
        surrogate = surrogate + probability.detach() * loss.sum()
    exact = torch.autograd.grad(objective, [first, second], retain_graph=True)
    found = torch.autograd.grad(surrogate, [first, second])
    for one, other in zip(exact, found, strict=True):
        torch.testing.assert_close(-other, one)


def test_nash_md_by_hand():
    log_probs = torch.tensor([[-1.0, -2.0, -9.0]])
    ref = torch.tensor([[-1.5, -1.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    found = nash_md_loss(log_probs, ref, mask, torch.tensor([0.9]), tau=0.1)
    # ratios 0.5 and -1: onward -0.5 and -1; 0.4 + 0.05 and 0.4 + 0.1
    assert found.item() == pytest.approx(0.45 * 1.0 + 0.5 * 2.0)
