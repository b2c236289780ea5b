"""Estimates of the KL against numbers by hand, and against the KL itself."""

import math

import pytest
import torch

from trainshed.policy.kl import adapted_coefficient, categorical_kl, kl_estimate


def test_by_hand():
    log_p, log_q = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert kl_estimate(log_p, log_q, "k1").item() == pytest.approx(math.log(2))
    assert kl_estimate(log_p, log_q, "k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_estimate(log_p, log_q, "k3").item() == pytest.approx(0.5 - 1 + math.log(2))


def test_k1_and_k3_are_the_kl_in_the_mean_and_k3_is_never_negative():
    draw = torch.Generator().manual_seed(0)
    logits, ref = torch.randn(6, generator=draw).double(), torch.randn(6, generator=draw).double()
    log_p, log_q = logits.log_softmax(-1), ref.log_softmax(-1)
    exact = (log_p.exp() * (log_p - log_q)).sum()
    for estimator in ("k1", "k3"):
        mean = (log_p.exp() * kl_estimate(log_p, log_q, estimator)).sum()
        torch.testing.assert_close(mean, exact)
    biased = (log_p.exp() * kl_estimate(log_p, log_q, "k2")).sum()
    assert abs(biased - exact) > 1e-3
    assert (kl_estimate(log_p, log_q, "k1") < 0).any()
    assert (kl_estimate(log_p, log_q, "k3") >= 0).all()
    torch.testing.assert_close(categorical_kl(logits, ref), exact.float())
    torch.testing.assert_close(
        categorical_kl(logits, ref),
        torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=ref)
        ).float(),
    )


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.1), (6.6, 0.1 * 1.01), (60.0, 0.1 * 1.02), (5.4, 0.1 * 0.99), (0.0, 0.1 * 0.98)],
)
def test_the_coefficient_follows_the_paper(kl, expected):
    assert adapted_coefficient(0.1, kl, target=6.0) == pytest.approx(expected)
