"""One answer from several passages: the language model reads each in a prompt of its own, and what it expects
next is mixed by the retrieval distribution.

REPLUG (arXiv 2301.12652, section 3.2, eq. 2) and RA-DIT (arXiv 2310.01352, section 2.1, eq. 2):
p(y_t | x, y_<t) = Σ_d p_R(d | x) p(y_t | d ∘ x ∘ y_<t). Decoding is Transformers' own `generate`, with logits
that are mixed over a question's rows, so that all its rows go on with the same token. Left out: beam search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from trainshed.models.seeds import derive_seed
from trainshed.rag.answer_logits import AnswerLogits, AnswerModel, Row
from trainshed.rag.prompts import TokenizedPrompt


class MixOverPassages(LogitsProcessor):
    """Replaces the logits of a question's rows by their mixture.

    Parameters
    ----------
    owners
        ``[rows]`` the question that each row belongs to, ascending from 0.
    log_weights
        ``[rows]`` log p_R(d | x).
    marginal
        Weigh the rows by p(d | x, y_<t) instead of p_R(d | x); see `generate`.
    temperature
        0 leaves the choice to the caller's argmax; above, one draw per question is made (Gumbel-max), the
        same for all its rows.
    generators
        Of each question, where its draws come from.
    """

    def __init__(
        self,
        owners: Tensor,
        log_weights: Tensor,
        *,
        marginal: bool = False,
        temperature: float = 0.0,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.marginal = marginal
        self.owners, self.log_weights = owners, log_weights.float()
        self.temperature, self.generators = temperature, generators
        self.questions = int(owners.max()) + 1
        self.log_likelihood = torch.zeros(len(owners))
        """``[rows]`` log p(y | d, x) of what was generated so far."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the mixture of every question in all its rows, ``[rows, V]``."""
        log_probs = torch.log_softmax(scores.float(), dim=-1)
        weights = self.log_weights
        if self.marginal:
            weights = weights + self.log_likelihood.to(weights.device)
        joint = log_probs + weights.unsqueeze(1)
        # log Σ exp over the rows of a question, by its largest entry for stability
        top = torch.full((self.questions, joint.shape[1]), -torch.inf, device=joint.device)
        top.scatter_reduce_(0, self.owners.unsqueeze(1).expand_as(joint), joint, "amax")
        top = top.clamp_min(torch.finfo(torch.float32).min)
        total = torch.zeros_like(top).index_add_(0, self.owners, (joint - top[self.owners]).exp())
        mixture = total.log() + top
        if self.temperature > 0:
            noise = torch.stack(
                [torch.rand(mixture.shape[1], generator=g, device=g.device) for g in self.generators]
            ).to(mixture.device)
            mixture = mixture / self.temperature - (-noise.clamp_min(1e-20).log()).log()
        self._log_probs = log_probs
        return mixture[self.owners]

    def chosen(self, tokens: Tensor, alive: Tensor) -> None:
        """Note the token that each row went on with, ``[rows]``, and which rows were still going on."""
        gained = self._log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
        self.log_likelihood = self.log_likelihood.to(gained.device) + torch.where(alive, gained, 0.0)


class _Listener(BaseStreamer):
    """Hears each token as it is chosen; the first call is the prompt."""

    def __init__(self, mix: MixOverPassages, end: int | None, on_token: Callable[[int], None] | None) -> None:
        self.mix, self.end_token, self.on_token = mix, end, on_token
        self.alive: Tensor | None = None

    def put(self, value: Tensor) -> None:
        """Take the prompt, then one token a row."""
        if self.alive is None:
            self.alive = torch.ones(len(value), dtype=torch.bool)
            return
        tokens = value.reshape(-1)
        device = self.mix.owners.device
        self.mix.chosen(tokens.to(device), self.alive.to(device))
        if self.on_token is not None and bool(self.alive[0]) and int(tokens[0]) != self.end_token:
            self.on_token(int(tokens[0]))
        if self.end_token is not None:
            self.alive &= tokens.cpu() != self.end_token

    def end(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class Generated:
    """Answers and how much each passage spoke for them."""

    texts: list[str]
    posteriors: list[Tensor]
    """Of each question, ``[k]``: p(d | x, y), each passage's share of the answer's probability."""


def generate(  # noqa: PLR0913 - one keyword a property of the answer
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[TokenizedPrompt]],
    log_weights: Sequence[Tensor],
    *,
    max_new_tokens: int,
    marginal: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
    on_token: Callable[[int], None] | None = None,
) -> Generated:
    """Answer questions, each from its prompts.

    Parameters
    ----------
    model, tokenizer
        A causal language model, and its tokenizer with an end-of-sequence token.
    prompts
        Of each question at least one.
    log_weights
        Of each question ``[k]`` log p_R(d | x).
    max_new_tokens
        Longest answer.
    marginal
        Each passage answers as a whole, and the answer's probability is Σ_d p_R(d | x) p(y | d, x)
        (RAG-Sequence, arXiv 2005.11401, section 2.1): passages that did not expect what was said so far lose
        weight. Without, their weights stay, as in REPLUG.
    temperature, seed
        0 takes the likeliest token; above, tokens are drawn from the mixture, seeded for each question by
        the seed and its prompts, so that what else is asked at once changes nothing.
    on_token
        Called with each token of the first question as it is chosen.
    """
    rows = [prompt.prompt_ids for question in prompts for prompt in question]
    device = model.device
    owners = torch.tensor([i for i, question in enumerate(prompts) for _ in question], device=device)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    drawn = prompts if temperature > 0 else []
    seeds = [derive_seed(seed, *(str(prompt.prompt_ids) for prompt in question)) for question in drawn]
    generators = [torch.Generator(device).manual_seed(number) for number in seeds]
    weights = torch.cat([weight.float() for weight in log_weights]).to(device)
    mix = MixOverPassages(owners, weights, marginal=marginal, temperature=temperature, generators=generators)
    listener = _Listener(mix, tokenizer.eos_token_id, on_token)
    training = model.training
    model.eval()
    try:
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
            logits_processor=LogitsProcessorList([mix]),
            streamer=listener,
        )
    finally:
        model.train(training)
    firsts = [int((owners == i).nonzero()[0]) for i in range(len(prompts))]
    texts = [tokenizer.decode(output[row, longest:], skip_special_tokens=True).strip() for row in firsts]
    joint = (weights + mix.log_likelihood.to(device)).cpu()
    posteriors = [torch.softmax(joint[(owners == i).cpu()], dim=0) for i in range(len(prompts))]
    return Generated([str(text) for text in texts], posteriors)


def answer_nll(
    model: AnswerModel,
    prompts: Sequence[Sequence[TokenizedPrompt]],
    log_weights: Sequence[Tensor],
    *,
    marginal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return how unlikely the mixture finds the answers that the prompts end in.

    Parameters
    ----------
    model
        The language model.
    prompts
        Of each question its prompts, all with the same answer.
    log_weights
        Of each question ``[k]`` log p_R(d | x).
    marginal
        As in `generate`.

    Returns
    -------
    tuple[Tensor, Tensor]
        ``[n]`` −Σ_t log Σ_d p_R(d | x) p(y_t | d, x, y_<t), or −log Σ_d p_R(d | x) p(y | d, x) when
        ``marginal``, in nats, with the end of sequence; and ``[n]`` tokens.
    """
    flat = [prompt for question in prompts for prompt in question]
    per_row: list[Tensor] = [torch.empty(0)] * len(flat)
    training = model.model.training
    model.model.eval()
    try:
        with torch.no_grad():
            for group in model.plan(flat):
                starts = model.starts(group)
                for batch in group.batches:
                    for row, part in zip(
                        batch, _token_log_probs(model.logits(batch, starts), batch), strict=True
                    ):
                        per_row[row.index] = part
    finally:
        model.model.train(training)
    totals, counts, start = [], [], 0
    for question, weights in zip(prompts, log_weights, strict=True):
        stacked = torch.stack(per_row[start : start + len(question)])  # [k, T]
        log_prior = weights.float().cpu()
        if marginal:
            totals.append(-torch.logsumexp(stacked.sum(dim=1) + log_prior, dim=0))
        else:
            totals.append(-torch.logsumexp(stacked + log_prior.unsqueeze(1), dim=0).sum())
        counts.append(stacked.shape[1])
        start += len(question)
    return torch.stack(totals), torch.tensor(counts)


def _token_log_probs(found: AnswerLogits, rows: Sequence[Row]) -> list[Tensor]:
    """Return the log-probabilities of each row's answer tokens."""
    log_probs = torch.log_softmax(found.logits.float(), dim=-1)
    tokens = log_probs.gather(1, found.targets.unsqueeze(1)).squeeze(1).cpu()
    return list(tokens.split([len(row.prompt.answer) for row in rows]))
