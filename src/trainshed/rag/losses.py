"""The losses that train a retriever and a generator, as pure functions of tensors.

LM-supervised retrieval (REPLUG LSR, arXiv 2301.12652, section 4; RA-DIT, arXiv 2310.01352, section 2.3) moves
the retrieval distribution P_R over a question's k candidates towards Q, what the language model makes of each
candidate. Both papers write KL(P_R ‖ Q), the mean over questions; here that is ``direction="reverse"`` (the
learner comes first), and KL(Q ‖ P_R), whose gradient is that of a cross-entropy, is ``direction="forward"``.

The papers take Q from probabilities of whole answers, which underflow to 0 from some thirty tokens on; here Q
is a softmax of log-likelihoods, divided by the temperature and on request by the number of tokens. Candidates
that are not there are masked: they get no mass and no gradient, whatever value stands in their place.

Left out: where the scores come from (`rag.scoring`, `rag.retriever`).
"""

from typing import Literal

import torch
from torch import Tensor

Direction = Literal["reverse", "forward"]


def retrieval_log_probs(scores: Tensor, temperature: float, *, mask: Tensor | None = None) -> Tensor:
    """Return log P_R(d | q), the log-softmax of retrieval scores over a question's candidates.

    REPLUG LSR, section 4.1: P_R(d | x) = exp(s(d, x) / γ) / Σ exp(s(d', x) / γ).

    Parameters
    ----------
    scores
        ``[n, k]`` similarity of each question with each candidate.
    temperature
        γ > 0; the papers use 0.1 (REPLUG) and 0.01 (RA-DIT).
    mask
        ``[n, k]`` bool, False where there is no candidate.

    Returns
    -------
    Tensor
        ``[n, k]`` in nats; ``-inf`` where masked. A question without any candidate is ``-inf`` throughout.
    """
    return _masked_log_softmax(scores, temperature, mask)


def lm_target(
    log_lik: Tensor,
    temperature: float,
    *,
    n_tokens: Tensor | None = None,
    normalise: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Return log Q(d | q, y), the log-softmax of the language model's log-likelihoods of the answer.

    REPLUG LSR, section 4.2, and RA-DIT, equation 4, with log p(y | d, q) in the place of p(y | d, q).

    Parameters
    ----------
    log_lik
        ``[n, k]`` log p(answer | passage, question), summed over the answer's tokens, in nats.
    temperature
        β > 0; a larger one spreads the target over more candidates.
    n_tokens
        ``[n]`` tokens of each answer; needed when ``normalise``.
    normalise
        Divide by the number of tokens first, so that long answers make no harder a target than short ones.
    mask
        ``[n, k]`` bool, False where there is no candidate.

    Returns
    -------
    Tensor
        ``[n, k]`` in nats; ``-inf`` where masked.
    """
    if normalise:
        if n_tokens is None:
            raise ValueError("lm_target(normalise=True) needs n_tokens")
        log_lik = log_lik / n_tokens.to(log_lik).unsqueeze(-1)
    return _masked_log_softmax(log_lik, temperature, mask)


def lsr_loss(
    scores: Tensor,
    log_lik: Tensor,
    *,
    retrieval_temperature: float,
    lm_temperature: float,
    direction: Direction = "reverse",
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    n_tokens: Tensor | None = None,
) -> Tensor:
    """Return the LM-supervised retrieval loss of a batch: the weighted KL divergence between P_R and Q.

    L = (1 / n) Σ_i w_i KL_i. The sum is divided by the number of questions n, not by Σ w_i: a batch in which
    few questions may teach then moves the retriever less, instead of as much as a batch in which all may.

    Parameters
    ----------
    scores
        ``[n, k]`` retrieval scores; the gradient goes here, and only here.
    log_lik
        ``[n, k]`` log p(answer | passage, question) in nats.
    retrieval_temperature, lm_temperature
        γ of `retrieval_log_probs` and β of `lm_target`.
    direction
        ``"reverse"`` is KL(P_R ‖ Q), the papers' formula; ``"forward"`` is KL(Q ‖ P_R).
    weights
        ``[n]`` how much each question counts, 1 by default; see `gate_weights`.
    mask
        ``[n, k]`` bool, False where there is no candidate. A question without candidates adds 0.
    n_tokens
        ``[n]`` tokens of each answer; when given, log-likelihoods are divided by them first.

    Returns
    -------
    Tensor
        Scalar ≥ 0 (for weights ≥ 0), 0 only where P_R = Q for every question that counts.
    """
    log_p = retrieval_log_probs(scores, retrieval_temperature, mask=mask)
    log_q = lm_target(
        log_lik.detach(), lm_temperature, n_tokens=n_tokens, normalise=n_tokens is not None, mask=mask
    ).to(log_p.dtype)
    if direction == "reverse":
        divergence = kl_divergence(log_p, log_q)
    elif direction == "forward":
        divergence = kl_divergence(log_q, log_p)
    else:
        raise ValueError(f"direction is {direction!r}; it may be 'reverse' or 'forward'")
    if weights is not None:
        divergence = divergence * weights.to(divergence.dtype)
    return divergence.mean()


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) = Σ_d p(d) (log p(d) − log q(d)) of each row, in nats.

    Parameters
    ----------
    log_p, log_q
        ``[n, k]`` log-probabilities; entries that are ``-inf`` in both count 0.

    Returns
    -------
    Tensor
        ``[n]``; ``inf`` where q rules out what p allows.
    """
    present = log_p > -torch.inf
    # Both branches of a where are differentiated, so what is not there is replaced before it is used.
    safe_p = log_p.masked_fill(~present, 0.0)
    safe_q = log_q.masked_fill(~present, 0.0)
    return (safe_p.exp() * (safe_p - safe_q)).masked_fill(~present, 0.0).sum(-1)


def gate_weights(
    log_lik: Tensor,
    closed_book: Tensor,
    *,
    margin: float,
    scale: float,
    min_mass: float,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return how much each question may teach the retriever, from 0 to 1.

    w_i = clip((max_d log p(y | d, q) − log p(y | q) − margin) / scale, 0, 1), and 0 unless the best candidate
    holds more than ``min_mass`` of Q. So a question teaches only where the generator shows that retrieval
    helps, and which passage helps. This is this package's own addition; neither paper has it.

    Parameters
    ----------
    log_lik
        ``[n, k]`` log p(answer | passage, question) in nats.
    closed_book
        ``[n]`` log p(answer | question) without a passage.
    margin
        The gain in nats from which a question counts at all.
    scale
        The further gain in nats at which it counts fully; > 0.
    min_mass
        The mass of Q that the best candidate must exceed; 0 asks for nothing.
    temperature
        β of the target Q in which the mass is measured.
    mask
        ``[n, k]`` bool, False where there is no candidate.

    Returns
    -------
    Tensor
        ``[n]`` float32 in [0, 1], without gradient. A question without candidates gets 0.
    """
    if scale <= 0:
        raise ValueError(f"scale is {scale}; it must be above 0")
    log_lik = log_lik.detach().float()
    mask = log_lik > -torch.inf if mask is None else mask
    has_candidate = mask.any(-1)
    best = log_lik.masked_fill(~mask, -torch.inf).amax(-1)
    gain = best.masked_fill(~has_candidate, 0.0) - closed_book.detach().float()
    mass = lm_target(log_lik, temperature, mask=mask).exp().amax(-1)
    ramp = ((gain - margin) / scale).clamp(0.0, 1.0)
    return ramp * (has_candidate & (mass > min_mass))


def answer_nll(
    logits: Tensor, labels: Tensor, *, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor:
    """Return the negative log-likelihood of answer tokens, in float32.

    RA-DIT, equation 2 (language model fine-tuning): −Σ_j log p(y_j | c ∘ x, y_<j), over answer tokens only.

    Parameters
    ----------
    logits
        ``[..., V]``, each row predicting the label at the same place (already shifted).
    labels
        ``[...]`` token ids; −100 marks places that carry no loss.
    reduction
        ``"mean"`` over the places that carry loss, ``"sum"``, or ``"none"`` (0 where none is carried).

    Returns
    -------
    Tensor
        Scalar, or ``[...]`` for ``"none"``, in nats. The mean over no places at all is 0.
    """
    nll = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1), ignore_index=-100, reduction="none"
    )
    if reduction == "none":
        return nll.view(labels.shape)
    total = nll.sum()
    return total if reduction == "sum" else total / (labels != -100).sum().clamp(min=1)


def marginal_log_lik(log_prior: Tensor, log_lik: Tensor, owners: Tensor, n: int) -> Tensor:
    """Return log p(y | x) = log Σ_c P_R(c | x) p(y | c, x), the answer's likelihood over all passages.

    RAG-Sequence (Lewis et al. 2020, arXiv 2005.11401, section 2.1). Its gradient is that of the passages'
    log-likelihoods, each weighed by the posterior p(c | x, y): a passage that does not help teaches little.

    Parameters
    ----------
    log_prior
        ``[r]`` log P_R(c | x) of each row, a question with one of its passages.
    log_lik
        ``[r]`` log p(y | c, x), summed over the answer's tokens, in nats.
    owners
        ``[r]`` int64, which of the ``n`` questions a row belongs to.
    n
        The number of questions.

    Returns
    -------
    Tensor
        ``[n]`` in nats; ``-inf`` for a question without a row.
    """
    joint = log_prior + log_lik
    top = torch.full((n,), -torch.inf, device=joint.device, dtype=joint.dtype)
    top = top.scatter_reduce(0, owners, joint.detach(), "amax").clamp_min(torch.finfo(joint.dtype).min)
    total = torch.zeros_like(top).index_add(0, owners, (joint - top[owners]).exp())
    return total.log() + top


def _masked_log_softmax(values: Tensor, temperature: float, mask: Tensor | None) -> Tensor:
    """Return the log-softmax of ``values / temperature`` over the last axis, ``-inf`` where masked."""
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if mask is None:
        return torch.log_softmax(values / temperature, dim=-1)
    # A large finite stand-in keeps a row without candidates, and its gradient, free of NaN.
    lowest = torch.finfo(values.dtype).min / 2
    filled = values.masked_fill(~mask, 0.0) / temperature
    log_probs = torch.log_softmax(filled.masked_fill(~mask, lowest), dim=-1)
    return log_probs.masked_fill(~mask, -torch.inf)
