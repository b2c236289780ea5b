"""How well a language model predicts texts: perplexity, and bits per byte, which no tokenizer changes.

A text that is longer than the model reads is read in windows that move on by a stride, so that every token
counts once and has at least ``window - stride`` tokens before it (as in the guide "Perplexity of fixed-length
models" of `transformers`). A text begins after the token that begins texts, or else the one that ends them,
so that its first token counts too (as ``loglikelihood_rolling`` of lm-evaluation-harness); of a prompt with
its completion only the completion counts, with the token that ends it, as in training. Left out: the
perplexity of classifiers and of masked language models.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainshed.data.encoding import Encoded, Treatment, encode_rows
from trainshed.data.formats import Row, RowFormat
from trainshed.errors import ConfigError, DataError, ModelError
from trainshed.evaluation.language import LanguageModel, LanguageScores, row_ids
from trainshed.evaluation.preferences import completion_log_probs
from trainshed.evaluation.significance import Resampling
from trainshed.progress import task
from trainshed.rag.prompts import TokenizedPrompt

#: formats of which it can be measured, the best first
ACCEPTS = ("prompt-completion", "text")
_AT_ONCE = 64
# a row whose exp would overflow: no model is that surprised
_MOST_NATS = 700.0


def measure_perplexity(
    lm: LanguageModel,
    rows: Sequence[Row],
    places: Sequence[str],
    fmt: RowFormat,
    *,
    stride: int | None = None,
    resampling: Resampling | None = None,
) -> LanguageScores:
    """Measure how well a model predicts texts, or completions of prompts.

    Parameters
    ----------
    lm
        The model; it reads ``lm.limit`` tokens at once.
    rows, places
        ``n`` checked rows of a format of `ACCEPTS`, and where each came from.
    fmt
        Their format.
    stride
        Tokens by which the window moves on; half a window when None.
    resampling
        Bootstrap samples, confidence and seed.

    Returns
    -------
    LanguageScores
        ``perplexity``: exp of the mean negative log-likelihood over all tokens; ``token_nll``: that mean, in
        nats; ``bits_per_byte``: the likelihood of all tokens in bits, over the bytes of the text in UTF-8.

    Raises
    ------
    ConfigError
        When the stride is not below the window.
    DataError
        When there are no rows.
    ModelError
        When a likelihood is not a finite number.
    """
    if not rows:
        raise DataError("there is no row to measure on", fix="a split with at least one row")
    window, step = _window(lm, stride)
    treatment = Treatment(append_eos=fmt.name != "text")
    nll, tokens, windows = np.zeros(len(rows)), np.zeros(len(rows)), 0
    with task("perplexity", len(rows)) as shown:
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            prompts: list[TokenizedPrompt] = []
            owners: list[int] = []
            for number, (encoded,) in encode_rows(rows[part], places[part], fmt, lm.tokenizer, treatment):
                made = list(_windows(encoded, lm.tokenizer, window, step))
                prompts += made
                owners += [start + number] * len(made)
            found = completion_log_probs(lm.model, prompts).double().numpy()
            index = np.array(owners, dtype=np.int64)
            np.subtract.at(nll, index, found)
            np.add.at(tokens, index, np.array([len(prompt.answer) for prompt in prompts], dtype=np.float64))
            windows += len(prompts)
            shown.advance(len(rows[part]))
    _check_finite(nll, places)
    bytes_ = np.array([_size(row, fmt) for row in rows], dtype=np.float64)
    return _scores(row_ids(rows), nll, tokens, bytes_, windows, resampling or Resampling())


def token_spans(length: int, first: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, from, end) of each window: it reads ``begin:end``, of which ``from:end`` count.

    Parameters
    ----------
    length
        Tokens of the text.
    first
        The first token that counts, above 0: what stands before it is only read.
    window
        Most tokens that are read at once.
    stride
        Tokens that count in each window but the first, below ``window``.
    """
    at = first
    while at < length:
        end = min(length, max(window, at + stride))
        yield max(0, end - window), at, end
        at = end


def _window(lm: LanguageModel, stride: int | None) -> tuple[int | None, int | None]:
    window = lm.limit
    if window is None:
        return None, None
    step = max(1, window // 2) if stride is None else stride
    if step >= window:
        raise ConfigError(
            f"a stride of {step} leaves no context in windows of {window} tokens",
            where="evaluation.stride",
            fix=f"less than {window}",
        )
    return window, step


def _windows(
    encoded: Encoded, tokenizer: Any, window: int | None, stride: int | None
) -> Iterator[TokenizedPrompt]:
    ids, first = list(encoded.ids), encoded.start
    if first == 0:
        begins, ends = tokenizer.bos_token_id, tokenizer.eos_token_id
        start = ends if begins is None else begins
        if start is not None and (not ids or ids[0] != begins):
            ids = [start, *ids]
        first = 1
    size = len(ids) if window is None else window
    for begin, at, end in token_spans(len(ids), first, size, stride or size):
        yield TokenizedPrompt(ids[begin:at], answer=ids[at:end])


def _check_finite(nll: np.ndarray, places: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(nll))
    if wrong.size:
        raise ModelError(
            f"the likelihood of {wrong.size} of {nll.size} rows is not a finite number",
            where=places[int(wrong[0])],
            fix="weights that are finite; model.dtype: float32",
        )


def _size(row: Row, fmt: RowFormat) -> int:
    """Return the bytes of what counts: the text, or the completion."""
    value = row["text"] if fmt.name == "text" else row["completion"]
    if isinstance(value, str):
        return len(value.encode("utf-8"))
    contents = (message.get("content") for message in value)
    return sum(len(content.encode("utf-8")) for content in contents if isinstance(content, str))


def _scores(
    ids: tuple[str, ...],
    nll: np.ndarray,
    tokens: np.ndarray,
    bytes_: np.ndarray,
    windows: int,
    resampling: Resampling,
) -> LanguageScores:
    with np.errstate(divide="ignore", invalid="ignore"):
        per_token = np.where(tokens > 0, nll / tokens, np.nan)
        per_byte = np.where(bytes_ > 0, nll / math.log(2) / bytes_, np.nan)
    return LanguageScores(
        ids=ids,
        values={
            "perplexity": np.exp(np.minimum(per_token, _MOST_NATS)),
            "token_nll": per_token,
            "bits_per_byte": per_byte,
        },
        weights={"perplexity": tokens, "token_nll": tokens, "bits_per_byte": bytes_},
        counts={"n_tokens": int(tokens.sum()), "n_bytes": int(bytes_.sum()), "n_windows": windows},
        resampling=resampling,
    )
