"""Losses of preference learning that no maintained library has: BCO, XPO and Nash-MD.

Pure functions of completions' log-probabilities. Left out: DPO and its relatives, which TRL has, and where
preferences come from.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor


def bco_loss(rewards: Tensor, labels: Tensor, delta: float) -> Tensor:
    """Return the loss of binary classifier optimisation for each completion (arXiv 2404.04656, eq. 8).

    ::

        r = β (log π(y|x) − log π_ref(y|x))
        L = −log σ(r − δ) where y is desired,  −log σ(−(r − δ)) where it is not

    Parameters
    ----------
    rewards
        ``[n]`` r.
    labels
        ``[n]``, true where the completion is desired.
    delta
        The reward shift δ, the mean of the mean rewards of desired and undesired ones; the caller keeps it
        as a running mean, without a gradient.

    Returns
    -------
    Tensor
        ``[n]``.
    """
    sign = torch.where(labels.bool(), 1.0, -1.0)
    return -functional.logsigmoid(sign * (rewards - delta))


def preference_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Return DPO's loss of pairs (arXiv 2305.18290, eq. 7): ``−log σ(β (chosen − rejected))``.

    Parameters
    ----------
    chosen, rejected
        ``[n]`` log-ratios ``log π − log π_ref`` of the preferred and the other completion.
    beta
        How strongly the reference holds.

    Returns
    -------
    Tensor
        ``[n]``.
    """
    return -functional.logsigmoid(beta * (chosen - rejected))


def xpo_loss(chosen: Tensor, rejected: Tensor, explored: Tensor, *, beta: float, alpha: float) -> Tensor:
    """Return the loss of exploratory preference optimisation (arXiv 2405.21046, algorithm 1).

    ::

        L = −log σ(β (chosen − rejected)) + α log π(ỹ|x),   ỹ sampled from the reference

    The second term takes probability away from what the reference does anyway, and so gives it to what has
    not been tried: optimism.

    Parameters
    ----------
    chosen, rejected
        ``[n]`` log-ratios as in `preference_loss`; of one sample of the policy and one of the reference.
    explored
        ``[n]`` log π(ỹ|x) of the reference's sample.
    beta, alpha
        How strongly the reference holds, and the weight of optimism.

    Returns
    -------
    Tensor
        ``[n]``.
    """
    return preference_loss(chosen, rejected, beta=beta) + alpha * explored


def nash_md_loss(
    log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor, wins: Tensor, *, tau: float
) -> Tensor:
    """Return a loss whose gradient is that of Nash-MD-PG (arXiv 2312.00886, section 7) for each completion.

    ::

        −∇ log π(y|x) · (P(y ≻ y'|x) − ½ − τ log(π(y|x) / μ(y|x))),   y ~ π,  y' ~ π^mix

    A token's log-ratio counts only for itself and the tokens before it, which no later one can have caused:
    the same gradient in the mean, with less variance.

    Parameters
    ----------
    log_probs, ref_log_probs
        ``[n, t]`` of the policy's sample under the policy π and the reference μ.
    mask
        ``[n, t]``, true for the completion's tokens.
    wins
        ``[n]`` P(y ≻ y'), the probability that it is preferred to the mixture's sample.
    tau
        How strongly the reference holds.

    Returns
    -------
    Tensor
        ``[n]``; its value says nothing, its gradient does.
    """
    inside = mask.to(log_probs.dtype)
    ratio = (log_probs - ref_log_probs).detach() * inside
    onward = ratio.flip(1).cumsum(1).flip(1)
    advantage = wins[:, None].to(log_probs.dtype) - 0.5 - tau * onward
    return -(advantage * log_probs * inside).sum(1)


def mixture_logits(logits: Tensor, ref_logits: Tensor, *, weight: float) -> Tensor:
    """Return the logits of the geometric mixture of two policies, token by token (arXiv 2312.00886, eq. 7).

    ::

        log π^mix = (1 − weight) log π + weight log μ + constant

    The paper's mixture is over whole completions; token by token is what can be sampled, as the paper does.

    Parameters
    ----------
    logits, ref_logits
        ``[..., v]`` of policy and reference.
    weight
        Share of the reference.
    """
    log_p = torch.log_softmax(logits.float(), -1)
    log_q = torch.log_softmax(ref_logits.float(), -1)
    return (1.0 - weight) * log_p + weight * log_q
