"""Kullback-Leibler divergence between a policy and its reference, and how strongly it is held down.

Estimators from samples: J. Schulman, "Approximating KL divergence" (2020). Adaptive coefficient: Ziegler et
al. 2019 (arXiv 1909.08593, section 2.2). Left out: where the log-probabilities come from (`model`).
"""

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(log_probs: Tensor, ref_log_probs: Tensor, estimator: Estimator = "k1") -> Tensor:
    """Return an estimate of KL(policy ‖ reference) for each token that the policy sampled, in nats.

    With ``r = log p(x) − log q(x)`` for a sample x of the policy p and the reference q::

        k1 = r                   unbiased, can be negative, much variance
        k2 = r² / 2              biased, never negative
        k3 = exp(−r) − 1 + r     unbiased, never negative, less variance

    Parameters
    ----------
    log_probs, ref_log_probs
        ``[...]`` log-probabilities of the sampled tokens.
    estimator
        Which of them.

    Returns
    -------
    Tensor
        ``[...]``.
    """
    ratio = log_probs - ref_log_probs
    if estimator == "k1":
        return ratio
    if estimator == "k2":
        return 0.5 * ratio.square()
    return torch.expm1(-ratio) + ratio


def categorical_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Return KL(policy ‖ reference) of whole distributions over the vocabulary, in nats.

    Summed over the tokens of a sampled completion it is an unbiased estimate of the completions' KL with less
    variance than `kl_estimate`, since only what was sampled before a token is left to chance.

    Parameters
    ----------
    logits, ref_logits
        ``[..., v]``.

    Returns
    -------
    Tensor
        ``[...]``.
    """
    log_p = torch.log_softmax(logits.float(), -1)
    log_q = torch.log_softmax(ref_logits.float(), -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def adapted_coefficient(
    coefficient: float, kl: float, *, target: float, gain: float = 0.1, most: float = 0.2
) -> float:
    """Return the KL coefficient for the next rollout (Ziegler et al. 2019, section 2.2).

    ::

        e = clip((KL − target) / target, −most, most)        β' = β (1 + gain · e)

    Parameters
    ----------
    coefficient
        β of the rollout that was measured.
    kl
        Its KL to the reference, nats a completion.
    target
        Where it should be, nats a completion, above 0.
    gain
        K_β, 0.1 in the paper.
    most
        Bound of the error, 0.2 in the paper.
    """
    error = max(-most, min(most, kl / target - 1.0))
    return coefficient * (1.0 + gain * error)
