"""From a completion's score to how much better each of its tokens was than expected.

Generalised advantage estimation: Schulman et al. 2015 (arXiv 1506.02438, eq. 16). Tokens are states of their
own, as in Ziegler et al. 2019 and Ouyang et al. 2022: the score stands at the last token, the KL penalty at
each. Left out: sampling and losses.
"""

import torch
from torch import Tensor

_TINY = 1e-8


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Return the reward of each token: ``−β·KL_t``, and the completion's score at its last token.

    Parameters
    ----------
    scores
        ``[n]``.
    kl
        ``[n, t]`` estimates of the KL to the reference.
    mask
        ``[n, t]``, true for the tokens of a completion, which begin on the left; each row has at least one.
    coefficient
        β.

    Returns
    -------
    Tensor
        ``[n, t]``, 0 beyond the completion.
    """
    rewards = -coefficient * kl * mask
    last = mask.sum(1) - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores.to(rewards.dtype)
    return rewards


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns (arXiv 1506.02438, eq. 16).

    ::

        δ_t = r_t + γ V_{t+1} − V_t        A_t = Σ_l (γλ)^l δ_{t+l}        R_t = A_t + V_t

    The value after a completion's last token is 0.

    Parameters
    ----------
    rewards, values
        ``[n, t]``; the value at t is that of the state before token t.
    mask
        ``[n, t]``, true for the tokens of a completion, which begin on the left.
    gamma, lam
        Discount γ and the weight λ between one step (0) and the whole completion (1).

    Returns
    -------
    tuple of Tensor
        Advantages and returns, ``[n, t]``, 0 beyond the completion.
    """
    inside = mask.to(rewards.dtype)
    known = values * inside
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - known[:, t]
        running = (delta + gamma * lam * running) * inside[:, t]
        advantages[:, t] = running
        following = known[:, t]
    return advantages, (advantages + values) * inside


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over what the mask takes; 0 when it takes nothing."""
    inside = mask.to(values.dtype)
    return (values * inside).sum() / inside.sum().clamp(min=1.0)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Return values with variance 1 over what the mask takes, and mean 0 unless the mean is to stay.

    Parameters
    ----------
    values
        ``[...]``.
    mask
        ``[...]``; elsewhere the result is 0.
    shift_mean
        False keeps the mean, so that the sign of a reward still means something.

    Returns
    -------
    Tensor
        The variance is Bessel-corrected. A single value, or equal ones, are not scaled up.
    """
    inside = mask.to(values.dtype)
    count = inside.sum()
    mean = masked_mean(values, mask)
    centred = values - mean
    variance = (centred.square() * inside).sum() / (count - 1).clamp(min=1.0)
    found = centred * torch.rsqrt(variance + _TINY)
    return (found if shift_mean else found + mean) * inside


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Return ``1 − Var(returns − values) / Var(returns)`` over the mask; 0 when all returns are the same."""
    chosen = mask.bool()
    told, found = returns[chosen].float(), values[chosen].float()
    spread = told.var(correction=0)
    if spread <= _TINY:
        return torch.zeros_like(spread)
    return 1.0 - (told - found).var(correction=0) / spread
