"""The losses of PPO on tokens: clipped policy, clipped value, entropy.

Schulman et al. 2017 (arXiv 1707.06347). Pure functions: every one returns a value for each token, so that the
caller decides what is summed and divided. Left out: advantages (`advantages`) and the KL to the reference
(`kl`).
"""

import torch
from torch import Tensor


def token_log_probs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the log-probabilities of tokens under the distribution that they were sampled from.

    Parameters
    ----------
    logits
        ``[n, t, v]``, those that predict the tokens.
    tokens
        ``[n, t]``.
    temperature
        That of the sampling; top-p and top-k are left out, so with them this is not quite what was sampled.

    Returns
    -------
    Tensor
        ``[n, t]`` in float32, nats.
    """
    scaled = logits.float() / temperature
    chosen = scaled.gather(-1, tokens[..., None])[..., 0]
    return chosen - torch.logsumexp(scaled, -1)


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the entropy of each distribution over the vocabulary, in nats: ``[n, t, v]`` to ``[n, t]``."""
    log_p = torch.log_softmax(logits.float() / temperature, -1)
    return -(log_p.exp() * log_p).sum(-1)


def clipped_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """Return PPO's policy loss (arXiv 1707.06347, eq. 7, with the sign of a loss) for each token.

    ::

        ρ = exp(log π − log π_old)        L = −min(ρ A, clip(ρ, 1 − clip_low, 1 + clip_high) A)

    Parameters
    ----------
    log_probs, old_log_probs
        ``[n, t]`` under the policy that learns and under the one that sampled.
    advantages
        ``[n, t]``.
    clip_low, clip_high
        How far the ratio may go down and up before it teaches no more.

    Returns
    -------
    tuple of Tensor
        The loss, and whether the clip took the gradient away: both ``[n, t]``.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return torch.maximum(plain, clipped), clipped > plain


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float | None = 0.2
) -> tuple[Tensor, Tensor]:
    """Return the squared error of values, pessimistically clipped around the old ones.

    ::

        L = ½ max((V − R)², (V_old + clip(V − V_old, −c, c) − R)²)

    as in the code of Ziegler et al. 2019 (OpenAI baselines); the PPO paper has no clip.

    Parameters
    ----------
    values, old_values, returns
        ``[n, t]``.
    clip
        c; None leaves the clip out.

    Returns
    -------
    tuple of Tensor
        The loss, and whether the clip took the gradient away: both ``[n, t]``.
    """
    plain = (values - returns).square()
    if clip is None:
        return 0.5 * plain, torch.zeros_like(plain, dtype=torch.bool)
    near = old_values + (values - old_values).clamp(-clip, clip)
    held = (near - returns).square()
    return 0.5 * torch.maximum(plain, held), held > plain
