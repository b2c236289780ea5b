"""A generator: a causal language model that answers a question with passages before it.

Left out: retrieval (`rag.system`), training (`trainers.ralt`), and what a mixture over passages is
(`rag.ensemble`).
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from trainshed.errors import ConfigError
from trainshed.files import atomic_directory, read_json, write_json
from trainshed.models.causal_lm import load_causal_lm, save_causal_lm
from trainshed.models.precision import autocast, resolve_dtype
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.ensemble import Generated, answer_nll, generate
from trainshed.rag.prompts import PASSAGE_FIRST, PromptTemplate, PromptTokenizer, TokenizedPrompt
from trainshed.rag.score_cache import ScoreCache
from trainshed.rag.scoring import AnswerScorer

_TEMPLATE_FILE = "prompt.json"


class Generator:
    """A language model with its tokenizer and the text around questions and passages.

    Parameters
    ----------
    model
        Any Transformers causal language model, plain or with adapters.
    tokenizer
        Its tokenizer.
    template
        The text around a question and its passage; `PASSAGE_FIRST` when None.
    max_length
        Longest prompt and answer together, in tokens; what the model can read when None. Only passages are
        cut.
    dtype
        Precision of matrix products when answering and scoring: a name, ``auto``; None is the model's own.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: PromptTemplate | None = None,
        max_length: int | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.template = template or PromptTemplate(PASSAGE_FIRST)
        reads = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if max_length is not None and reads is not None and max_length > reads:
            raise ConfigError(
                f"max_length is {max_length}, but the model reads {reads} tokens",
                where="rag.max_length",
                fix=f"at most {reads}",
            )
        self.max_length: int = max_length or reads or 2048
        self.dtype = None if dtype is None else resolve_dtype(dtype, model.device)
        self.prompts = PromptTokenizer(self.template, tokenizer, max_length=self.max_length)

    @classmethod
    def from_name(cls, name_or_path: str, *, device: str = "cpu", **options: Any) -> Self:
        """Load a generator by the name or directory of its model.

        A template that `save` wrote beside the weights is used unless ``options`` has one.
        """
        if options.get("template") is None:
            options["template"] = saved_template(name_or_path)
        model, tokenizer = load_causal_lm(name_or_path, device=device)
        return cls(model, tokenizer, **options)

    def save(self, directory: str | Path) -> None:
        """Write weights, tokenizer and template as a directory that ``from_pretrained`` loads, atomically."""
        with atomic_directory(Path(directory)) as partial:
            self.write(partial)

    def write(self, directory: Path) -> None:
        """Write the same into a directory that the caller makes complete."""
        save_causal_lm(self.model, self.tokenizer, directory)
        template = self.template
        fields = {"text": template.text, "no_context": template.no_context}
        fields |= {"answer_prefix": template.answer_prefix}
        write_json(directory / _TEMPLATE_FILE, {**fields, "chat": template.chat})

    def autocast(self) -> Any:
        """Return the context in which the model computes."""
        return autocast(self.model.device, self.dtype)

    def tokenize(
        self, queries: Sequence[str], contexts: Sequence[Sequence[str | None]], answers: Sequence[str | None]
    ) -> list[list[TokenizedPrompt]]:
        """Return one prompt for every question and passage; without passages, the prompt without one."""
        return [
            self.prompts.question(query, list(passages) or [None], answer)
            for query, passages, answer in zip(queries, contexts, answers, strict=True)
        ]

    def generate(
        self,
        queries: Sequence[str],
        contexts: Sequence[Sequence[str]],
        log_weights: Sequence[Tensor] | None = None,
        *,
        max_new_tokens: int = 32,
        marginal: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        on_token: Callable[[int], None] | None = None,
    ) -> Generated:
        """Answer questions from their passages, each in a prompt of its own.

        Parameters
        ----------
        queries
            ``n`` questions.
        contexts
            The passages of each; none answers without.
        log_weights
            Of each ``[k]`` log p_R(d | x); equal when None.
        max_new_tokens, marginal, temperature, seed, on_token
            As in `rag.ensemble.generate`.
        """
        room = self.max_length - max_new_tokens
        if room < 1:
            raise ConfigError(
                f"max_new_tokens is {max_new_tokens}, but the model reads only {self.max_length}",
                where="rag.max_new_tokens",
            )
        shorter = PromptTokenizer(self.template, self.tokenizer, max_length=room)
        prompts = [
            shorter.question(query, list(passages) or [None])
            for query, passages in zip(queries, contexts, strict=True)
        ]
        with self.autocast():
            return generate(
                self.model,
                self.tokenizer,
                prompts,
                _weights(contexts, log_weights),
                max_new_tokens=max_new_tokens,
                marginal=marginal,
                temperature=temperature,
                seed=seed,
                on_token=on_token,
            )

    def answer_nll(
        self,
        queries: Sequence[str],
        contexts: Sequence[Sequence[str]],
        answers: Sequence[str],
        log_weights: Sequence[Tensor] | None = None,
        *,
        marginal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return −log p(answer, end | question) ``[n]`` under the mixture of passages, and tokens ``[n]``."""
        prompts = self.tokenize(queries, contexts, answers)
        with self.autocast():
            model = AnswerModel(self.model)
            return answer_nll(model, prompts, _weights(contexts, log_weights), marginal=marginal)

    def scorer(self, *, cache: ScoreCache | None = None, tokens_per_batch: int | None = None) -> AnswerScorer:
        """Return what scores answers given passages under the model as it is now."""
        more = {} if tokens_per_batch is None else {"tokens_per_batch": tokens_per_batch}
        return AnswerScorer(
            self.model,
            self.tokenizer,
            self.template,
            max_length=self.max_length,
            dtype=self.dtype,
            cache=cache,
            **more,
        )


def saved_template(name_or_path: str | None) -> PromptTemplate | None:
    """Return the template that `Generator.save` wrote beside the weights, or None."""
    path = Path(name_or_path or "").expanduser() / _TEMPLATE_FILE
    return PromptTemplate(**read_json(path)) if path.is_file() else None


def _weights(contexts: Sequence[Sequence[str]], log_weights: Sequence[Tensor] | None) -> list[Tensor]:
    """Return log p_R of each question's passages, equal where none is given."""
    if log_weights is not None:
        return [
            weight if len(passages) else torch.zeros(1)
            for passages, weight in zip(contexts, log_weights, strict=True)
        ]
    sizes = [max(1, len(passages)) for passages in contexts]
    return [torch.full((size,), -math.log(size)) for size in sizes]
