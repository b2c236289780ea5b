"""How likely a language model finds an answer, given each of many passages.

log p(answer, end | passage, question) for all (question, passage) pairs of a batch together; see
`rag.answer_logits` for how, and `rag.score_cache` for what is not computed twice. Everything stays in log
space: the probability of a long answer is 0 in any floating-point number.

Left out: what is made of the scores (`rag.losses`).
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainshed.files import canonical_json, digest_text
from trainshed.models.attention import PLAIN, has_ordinary_attention
from trainshed.models.encoders import weights_hash
from trainshed.models.precision import autocast
from trainshed.rag.answer_logits import AnswerLogits, AnswerModel
from trainshed.rag.losses import answer_nll
from trainshed.rag.prompts import PromptTemplate, PromptTokenizer, TokenizedPrompt
from trainshed.rag.score_cache import CachedScore, ScoreCache, score_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The most logits that are turned to float32 at once: 256 MiB, and on a CPU 1 MiB.
_LOGITS_AT_ONCE, _LOGITS_AT_ONCE_CPU = 1 << 26, 1 << 18
# On a CPU plain attention in bfloat16 is the faster one for short rows; long ones need too much memory.
_PLAIN_ATTENTION_LENGTH = 1_024


@dataclass(slots=True)
class AnswerScores:
    """Log-likelihoods of answers, each given several passages."""

    log_likelihood: Tensor
    """``[n, k]`` float32, summed over the answer's tokens and the end; ``-inf`` where there is no passage."""
    mask: Tensor
    """``[n, k]`` bool, True where there is a passage."""
    n_tokens: Tensor
    """``[n]`` int64, the answer's tokens with the end-of-sequence token."""
    closed_book: Tensor | None = None
    """``[n]`` float32, the log-likelihood without a passage; None when it was not asked for."""


class AnswerScorer:
    """Scores answers under a frozen language model.

    Parameters
    ----------
    model
        Any Transformers causal language model.
    tokenizer
        Its tokenizer.
    template
        The text around question and passage.
    max_length
        The longest prompt and answer together, in tokens; longer passages are cut.
    tokens_per_batch
        The most tokens, padding included, in one forward pass; see `AnswerModel.plan`.
    dtype
        Precision, such as ``torch.bfloat16``; None computes in the model's own. Float32 weights are copied in
        it once (see `narrowed`); others are used under autocast.
    cache
        Where scores are kept, by the hash of the model's weights; None keeps nothing.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerBase",
        template: PromptTemplate,
        *,
        max_length: int,
        tokens_per_batch: int | None = None,
        dtype: torch.dtype | None = None,
        cache: ScoreCache | None = None,
    ) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.tokens_per_batch, self.dtype, self.cache = tokens_per_batch, dtype, cache
        self._prompts = PromptTokenizer(template, tokenizer, max_length=max_length)
        self._answers: tuple[tuple[int, ...], AnswerModel] | None = None
        self._scope: tuple[tuple[int, ...], str] | None = None

    def score(
        self,
        queries: Sequence[str],
        contexts: Sequence[Sequence[str]],
        answers: Sequence[str],
        *,
        closed_book: bool = False,
        ids: Sequence[str] | None = None,
    ) -> AnswerScores:
        """Return log p(answer, end | passage, question) of every question with each of its passages.

        Parameters
        ----------
        queries
            ``n`` questions.
        contexts
            The passages of each; questions may have different numbers of them.
        answers
            The answer of each.
        closed_book
            Also score each answer without a passage.
        ids
            What an error calls each question; its text by default.

        Returns
        -------
        AnswerScores
            With ``k`` the largest number of passages.

        Raises
        ------
        DataError
            When a question and its answer alone are longer than ``max_length``.
        """
        if not len(queries) == len(contexts) == len(answers):
            raise ValueError(
                f"{len(queries)} questions, {len(contexts)} passage lists, {len(answers)} answers"
            )
        asked: list[list[str | None]] = [
            [*passages, *([None] if closed_book else [])] for passages in contexts
        ]
        found = self._scores(queries, asked, answers, ids)
        width = max((len(passages) for passages in contexts), default=0)
        log_likelihood = torch.full((len(queries), width), -torch.inf)
        alone = torch.zeros(len(queries)) if closed_book else None
        n_tokens = torch.zeros(len(queries), dtype=torch.long)
        for row, (passages, scores) in enumerate(zip(contexts, found, strict=True)):
            values = [score.log_likelihood for score in scores]
            log_likelihood[row, : len(passages)] = torch.tensor(values[: len(passages)])
            if alone is not None:
                alone[row] = values[-1]
            n_tokens[row] = scores[0].n_tokens if scores else 0
        counts = torch.tensor([len(passages) for passages in contexts]).unsqueeze(1)
        return AnswerScores(log_likelihood, torch.arange(width) < counts, n_tokens, alone)

    def closed_book(
        self, queries: Sequence[str], answers: Sequence[str], *, ids: Sequence[str] | None = None
    ) -> Tensor:
        """Return log p(answer, end | question) without a passage, ``[n]`` float32."""
        found = self._scores(queries, [[None]] * len(queries), answers, ids)
        return torch.tensor([scores[0].log_likelihood for scores in found])

    def _scores(
        self,
        queries: Sequence[str],
        asked: Sequence[Sequence[str | None]],
        answers: Sequence[str],
        ids: Sequence[str] | None,
    ) -> list[list[CachedScore]]:
        """Return the score of each question with each passage asked for, from the cache or the model."""
        scope = self.scope() if self.cache is not None else ""
        keys = [
            [score_key(scope, query, passage, answer) for passage in passages]
            for query, passages, answer in zip(queries, asked, answers, strict=True)
        ]
        flat = [key for row in keys for key in row]
        known = dict(zip(flat, self.cache.get(flat), strict=True)) if self.cache is not None else {}
        missing: dict[bytes, None] = {}
        prompts: list[TokenizedPrompt] = []
        for row, (query, passages, answer) in enumerate(zip(queries, asked, answers, strict=True)):
            wanted = {
                key: passage
                for key, passage in zip(keys[row], passages, strict=True)
                if known.get(key) is None and key not in missing
            }
            missing |= dict.fromkeys(wanted)
            prompts += self._prompts.question(
                query, list(wanted.values()), answer, question_id=ids[row] if ids else None
            )
        new = {
            key: CachedScore(value, len(prompt.answer))
            for key, value, prompt in zip(missing, self._log_likelihoods(prompts), prompts, strict=True)
        }
        if self.cache is not None:
            self.cache.put(new, scope=scope)
        return [[new.get(key) or known[key] for key in row] for row in keys]  # type: ignore[misc]

    def _log_likelihoods(self, prompts: Sequence[TokenizedPrompt]) -> list[float]:
        """Return each prompt's answer log-likelihood."""
        total = torch.zeros(len(prompts), dtype=torch.float32)
        if not prompts:
            return []
        model = self._answering()
        with self._frozen(model):
            for group in model.plan(prompts, tokens_per_batch=self.tokens_per_batch):
                starts = model.starts(group)
                for rows in group.batches:
                    answer = model.logits(rows, starts)
                    total.index_add_(0, answer.owners.cpu(), token_log_probs(answer).cpu())
        return total.tolist()

    @contextlib.contextmanager
    def _frozen(self, model: AnswerModel) -> Iterator[None]:
        """Evaluate without gradients and dropout, in the asked precision; then leave the model as it was."""
        training = self.model.training
        self.model.eval()
        dtype = self.dtype if model.model is self.model else None
        try:
            with torch.no_grad(), autocast(self.model.device, dtype):
                yield
        finally:
            self.model.train(training)

    def _weights_state(self) -> tuple[int, ...]:
        """Return what differs once a parameter has been changed in place."""
        return tuple(parameter._version for parameter in self.model.parameters())

    def _answering(self) -> AnswerModel:
        """Return the model that computes: a copy in ``dtype``, made anew when the weights have changed."""
        state = self._weights_state()
        if self._answers is None or (state != self._answers[0] and self._answers[1].model is not self.model):
            short = self._prompts.max_length <= _PLAIN_ATTENTION_LENGTH
            copied = narrowed(self.model, self.dtype, plain_attention=short)
            self._answers = (state, AnswerModel(self.model if copied is None else copied))
        return self._answers[1]

    def scope(self) -> str:
        """Return the hash of everything but the texts that decides a score.

        The weights are hashed again when a parameter has been changed in place since the last call.
        """
        state = self._weights_state()
        if self._scope is None or self._scope[0] != state:
            vocabulary = digest_text(canonical_json(self.tokenizer.get_vocab()))
            parts = [
                weights_hash(self.model),
                self.template.digest,
                str(getattr(self.tokenizer, "chat_template", None)) if self._prompts.chat else "",
                vocabulary,
                self.tokenizer.eos_token_id,
                self._prompts.max_length,
                str(self.dtype or self.model.dtype),
            ]
            self._scope = (state, digest_text(canonical_json(parts)))
        return self._scope[1]


def narrowed(model: Any, dtype: torch.dtype | None, *, plain_attention: bool) -> Any | None:
    """Return a copy of a frozen model with its float32 parameters in a half precision.

    Faster than autocast, which keeps activations in float32 between products and casts them for each.
    Buffers, such as the frequencies of rotary positions, and what the model wants in float32 stay so.

    Parameters
    ----------
    model
        A Transformers model, with or without adapters.
    dtype
        The precision.
    plain_attention
        Whether attention on a CPU may be computed without fused kernels.

    Returns
    -------
    Any
        The copy, for evaluation; None where there is nothing to gain, or the weights cannot be cast
        (quantised, or wrapped for distributed training).
    """
    kinds = {parameter.dtype for parameter in model.parameters()}
    castable = hasattr(model, "config") and not getattr(model, "is_quantized", False)
    if dtype not in (torch.bfloat16, torch.float16) or kinds != {torch.float32} or not castable:
        return None
    result = copy.deepcopy(model).eval().requires_grad_(False)
    kept = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, parameter in result.named_parameters():
        if not any(part in kept for part in name.split(".")):
            parameter.data = parameter.data.to(dtype)
    fused = getattr(result.config, "_attn_implementation", None) == "sdpa"
    if plain_attention and fused and result.device.type == "cpu":
        result.set_attn_implementation(PLAIN if has_ordinary_attention(result) else "eager")
    return result


def token_log_probs(answer: AnswerLogits) -> Tensor:
    """Return the log-probability of each answer token, ``[T]`` float32.

    The softmax is taken in float32 whatever the precision of the logits, a part at a time: on a CPU a part
    that stays in its caches is several times faster, and a large vocabulary needs no second copy.
    """
    at_once = _LOGITS_AT_ONCE_CPU if answer.logits.device.type == "cpu" else _LOGITS_AT_ONCE
    rows = max(1, at_once // answer.logits.shape[-1])
    parts = [
        -answer_nll(logits, targets, reduction="none")
        for logits, targets in zip(answer.logits.split(rows), answer.targets.split(rows), strict=True)
    ]
    return torch.cat(parts)
