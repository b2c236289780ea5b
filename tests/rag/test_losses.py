"""The retrieval and answer losses against values computed by hand, and what must always hold."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from trainshed.rag.losses import (
    answer_nll,
    gate_weights,
    kl_divergence,
    lm_target,
    lsr_loss,
    marginal_log_lik,
    retrieval_log_probs,
)

DIRECTIONS = ["reverse", "forward"]


def matrices(low=-30.0, high=30.0, count=1):
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 6))
    values = st.floats(low, high, allow_nan=False, width=64)
    return shapes.flatmap(lambda shape: st.tuples(*[npst.arrays("float64", shape, elements=values)] * count))


def test_retrieval_distribution_by_hand():
    log_probs = retrieval_log_probs(torch.tensor([[0.2, 0.1]]), 0.1)
    # exp(2) / (exp(2) + exp(1))
    assert log_probs.exp()[0].tolist() == pytest.approx([0.7310586, 0.2689414], abs=1e-6)


def test_lm_target_by_hand():
    log_lik = torch.tensor([[-100.0, -104.0]])  # exp() of either is 0 in float32
    assert lm_target(log_lik, 2.0).exp()[0, 0].item() == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    per_token = lm_target(log_lik, 1.0, n_tokens=torch.tensor([4]), normalise=True)
    assert per_token.exp()[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    with pytest.raises(ValueError, match="n_tokens"):
        lm_target(log_lik, 1.0, normalise=True)


def test_both_directions_by_hand():
    scores = torch.log(torch.tensor([[0.75, 0.25]]))
    log_lik = torch.log(torch.tensor([[0.5, 0.5]]))
    both = dict(retrieval_temperature=1.0, lm_temperature=1.0)
    reverse = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    forward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert lsr_loss(scores, log_lik, **both).item() == pytest.approx(reverse, abs=1e-6)
    assert lsr_loss(scores, log_lik, direction="forward", **both).item() == pytest.approx(forward, abs=1e-6)
    with pytest.raises(ValueError, match="sideways"):
        lsr_loss(scores, log_lik, direction="sideways", **both)


def test_forward_gradient_by_hand():
    scores = torch.tensor([[0.3, 0.1, -0.2]], dtype=torch.double, requires_grad=True)
    log_lik = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.double)
    lsr_loss(scores, log_lik, retrieval_temperature=0.5, lm_temperature=1.0, direction="forward").backward()
    expected = (torch.softmax(scores.detach() / 0.5, -1) - torch.softmax(log_lik, -1)) / 0.5
    assert torch.allclose(scores.grad, expected, atol=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("masked", [False, True])
def test_gradient_equals_numeric(direction, masked):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, dtype=torch.double, generator=generator, requires_grad=True)
    log_lik = 5 * torch.randn(3, 4, dtype=torch.double, generator=generator)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4]) if masked else None
    weights = torch.tensor([1.0, 0.25, 0.5], dtype=torch.double)

    def loss(values):
        return lsr_loss(
            values,
            log_lik,
            retrieval_temperature=0.7,
            lm_temperature=2.0,
            direction=direction,
            weights=weights,
            mask=mask,
        )

    assert torch.autograd.gradcheck(loss, (scores,))


def test_no_gradient_reaches_the_language_model():
    scores = torch.randn(2, 3, requires_grad=True)
    log_lik = torch.randn(2, 3, requires_grad=True)
    lsr_loss(scores, log_lik, retrieval_temperature=1.0, lm_temperature=1.0).backward()
    assert scores.grad is not None
    assert log_lik.grad is None


@given(matrices(count=2), st.floats(0.05, 5), st.sampled_from(DIRECTIONS))
def test_never_negative_and_shifts_do_not_matter(arrays, temperature, direction):
    scores, log_lik = (torch.from_numpy(array) for array in arrays)

    def loss(one, two):
        return lsr_loss(
            one, two, retrieval_temperature=temperature, lm_temperature=temperature, direction=direction
        ).item()

    value = loss(scores, log_lik)
    assert value >= -1e-9
    shift = torch.arange(len(scores), dtype=torch.double).unsqueeze(1)
    assert loss(scores + shift, log_lik - 3 * shift) == pytest.approx(value, rel=1e-6, abs=1e-6)
    order = torch.randperm(scores.shape[1])
    assert loss(scores[:, order], log_lik[:, order]) == pytest.approx(value, rel=1e-6, abs=1e-6)


@given(matrices(-5, 5), st.floats(0.5, 5), st.sampled_from(DIRECTIONS))
def test_zero_exactly_when_equal(arrays, temperature, direction):
    scores = torch.from_numpy(arrays[0])
    equal = dict(retrieval_temperature=temperature, lm_temperature=2 * temperature, direction=direction)
    assert lsr_loss(scores, 2 * scores + 7, **equal).item() == pytest.approx(0.0, abs=1e-9)
    if scores.shape[1] > 1:
        other = scores.clone()
        other[0, 0] += 1.0
        assert lsr_loss(scores, 2 * other, **equal).item() > 1e-9


@given(matrices(count=2), st.randoms(use_true_random=False), st.sampled_from(DIRECTIONS))
def test_masked_candidates_count_for_nothing(arrays, random, direction):
    scores, log_lik = (torch.from_numpy(array) for array in arrays)
    mask = torch.tensor([[random.random() < 0.6 for _ in row] for row in scores])
    hidden_scores = scores.masked_fill(~mask, random.choice([-math.inf, math.inf, math.nan, 3.0]))
    hidden_log_lik = log_lik.masked_fill(~mask, -math.inf)
    hidden_scores.requires_grad_()
    both = dict(retrieval_temperature=0.5, lm_temperature=2.0, direction=direction)
    loss = lsr_loss(hidden_scores, hidden_log_lik, mask=mask, **both)
    loss.backward()
    # Each question alone, with only the candidates it has.
    alone = [
        lsr_loss(scores[row : row + 1, keep], log_lik[row : row + 1, keep], **both).item()
        if keep.any()
        else 0.0
        for row, keep in enumerate(mask)
    ]
    assert loss.item() == pytest.approx(sum(alone) / len(scores), rel=1e-6, abs=1e-6)
    assert torch.isfinite(hidden_scores.grad).all()
    assert (hidden_scores.grad[~mask] == 0).all()


def test_weights_scale_and_the_mean_is_over_questions():
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    log_lik = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    both = dict(retrieval_temperature=1.0, lm_temperature=1.0)
    plain = lsr_loss(scores, log_lik, **both)
    half = lsr_loss(scores, log_lik, weights=torch.tensor([1.0, 0.0]), **both)
    assert half.item() == pytest.approx(plain.item() / 2)


def test_kl_is_infinite_where_q_rules_out_what_p_allows():
    p = torch.log(torch.tensor([[0.5, 0.5]]))
    q = torch.tensor([[0.0, -math.inf]])
    assert kl_divergence(p, q).item() == math.inf
    assert kl_divergence(q, p).item() == pytest.approx(math.log(2))


def test_gate_by_hand():
    log_lik = torch.tensor([[-2.0, -30.0], [-2.0, -2.1], [-20.0, -40.0], [-8.0, -20.0], [0.0, 0.0]])
    closed_book = torch.tensor([-20.0, -20.0, -20.0, -20.0, -20.0])
    mask = torch.tensor([[True, True]] * 4 + [[False, False]])
    weights = gate_weights(log_lik, closed_book, margin=4.0, scale=16.0, min_mass=0.6, mask=mask)
    # gain 18: (18 - 4) / 16; two candidates alike; no gain; gain 12: 8 / 16; no candidates
    assert weights.tolist() == pytest.approx([0.875, 0.0, 0.0, 0.5, 0.0])
    assert weights.dtype == torch.float32
    with pytest.raises(ValueError, match="scale"):
        gate_weights(log_lik, closed_book, margin=0.0, scale=0.0, min_mass=0.0)


@given(
    matrices(-60, 0, count=1), st.floats(-60, 0), st.floats(-5, 10), st.floats(0.1, 10), st.floats(0, 0.99)
)
def test_gate_is_between_0_and_1_and_ignores_absent_candidates(arrays, closed, margin, scale, min_mass):
    log_lik = torch.from_numpy(arrays[0])
    closed_book = torch.full((len(log_lik),), closed)
    how = dict(margin=margin, scale=scale, min_mass=min_mass)
    weights = gate_weights(log_lik, closed_book, **how)
    assert ((weights >= 0) & (weights <= 1)).all()
    padded = torch.cat([log_lik, torch.full((len(log_lik), 2), -math.inf)], dim=1)
    assert torch.allclose(gate_weights(padded, closed_book, **how), weights, atol=1e-6)


def test_answer_nll_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    labels = torch.tensor([0, 1, -100])
    expected = [-math.log(0.5), -math.log(0.8)]
    assert answer_nll(logits, labels).item() == pytest.approx(sum(expected) / 2)
    assert answer_nll(logits, labels, reduction="sum").item() == pytest.approx(sum(expected))
    assert answer_nll(logits[None], labels[None], reduction="none")[0].tolist() == pytest.approx(
        [*expected, 0.0]
    )
    assert answer_nll(logits, torch.full((3,), -100)).item() == 0.0


def test_answer_nll_gradient_equals_numeric():
    logits = torch.randn(4, 5, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([1, -100, 4, 0])
    # The loss is taken in float32, so the comparison allows for its precision.
    assert torch.autograd.gradcheck(
        lambda values: answer_nll(values, labels), (logits,), eps=1e-3, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        retrieval_log_probs(torch.zeros(1, 2), temperature)


def test_marginal_likelihood_by_hand():
    prior = torch.tensor([0.25, 0.75, 1.0]).log()
    log_lik = torch.tensor([math.log(0.5), math.log(0.1), -900.0], requires_grad=True)
    found = marginal_log_lik(prior, log_lik, torch.tensor([0, 0, 1]), 3)
    assert found[:2].tolist() == pytest.approx([math.log(0.25 * 0.5 + 0.75 * 0.1), -900.0])
    assert found[2] == -math.inf
    found[:2].sum().backward()  # the gradient is the posterior
    assert log_lik.grad.tolist() == pytest.approx([0.125 / 0.2, 0.075 / 0.2, 1.0])
