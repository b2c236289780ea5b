"""Cutting documents into passages of so many tokens, with overlap and exact spans.

Cuts are made between words where there is one in reach, otherwise between tokens, never inside a character.
Left out: cutting by headings or meaning; a passage may begin in the middle of a sentence.
"""

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trainshed.data.documents import Document
from trainshed.data.passages import Passage
from trainshed.errors import DataError


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Where a text may be cut.

    Attributes
    ----------
    positions
        Character at which each token that is not white space starts, and the end of the text; ascending.
    words, all
        Indices of ``positions`` that lie between words, and between any two tokens; both end with the last.
    """

    text: str
    positions: list[int]
    words: list[int]
    all: list[int]


def chunk_documents(
    documents: Iterable[Document], tokenizer: Any, *, max_tokens: int, overlap_tokens: int = 0
) -> Iterator[Passage]:
    """Cut documents into passages, in order.

    Parameters
    ----------
    documents
        What to cut.
    tokenizer
        A fast tokenizer of Transformers, whose tokens are counted.
    max_tokens
        Longest passage, in tokens of its text alone, without special tokens.
    overlap_tokens
        How many of the last tokens of a passage the next one repeats; up to one word more, so that it begins
        with a whole word.

    Yields
    ------
    Passage
        ``text`` is ``document.text[start:end]`` and begins and ends with no white space; the id is
        ``doc_id#chunk_id``. Together the passages of a document hold all of its text but white space.

    Raises
    ------
    DataError
        When the numbers make no sense, the tokenizer is not a fast one, or a character alone is longer
        than ``max_tokens``.
    """
    _check_request(tokenizer, max_tokens, overlap_tokens)
    for document in documents:
        spans = _spans(document, tokenizer, max_tokens, overlap_tokens)
        for number, (start, end) in enumerate(spans):
            yield Passage(
                id=f"{document.doc_id}#{number}",
                text=document.text[start:end],
                title=document.title,
                doc_id=document.doc_id,
                chunk_id=number,
                start=start,
                end=end,
                source=document.source,
            )


def _check_request(tokenizer: Any, max_tokens: int, overlap_tokens: int) -> None:
    if not 0 <= overlap_tokens < max_tokens:
        raise DataError(
            f"an overlap of {overlap_tokens} tokens does not fit passages of {max_tokens}",
            where="data.chunk_overlap, data.chunk_tokens",
            fix="an overlap from 0 to less than the tokens of a passage",
        )
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"{type(tokenizer).__name__} does not say which characters a token covers",
            fix="a fast tokenizer, such as transformers.AutoTokenizer returns",
        )


def _spans(document: Document, tokenizer: Any, limit: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) in characters, without white space at either end."""
    cuts = _find_cuts(document.text, tokenizer)
    last = len(cuts.positions) - 1
    first, done = 0, 0
    while done < last:
        end = _fitting_end(cuts, first, done, tokenizer, limit)
        if end is None:
            if first == done:
                position = cuts.positions[first]
                raise DataError(
                    f"the character {document.text[position]!r} is longer than {limit} tokens",
                    where=f"document {document.doc_id}, character {position}",
                    fix="a larger data.chunk_tokens",
                )
            # what comes next leaves no room for all of the overlap: repeat less of it
            first = cuts.all[bisect.bisect_right(cuts.all, first)]
            continue
        start_char, end_char = _strip(cuts.text, cuts.positions[first], cuts.positions[end])
        if start_char < end_char:
            yield start_char, end_char
        first, done = _next_start(cuts, first, end, overlap), end


def _find_cuts(text: str, tokenizer: Any) -> _Cuts:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    positions, words, inner = [0], [], []
    reached = 0  # how far the tokens so far cover the text
    for start, end in encoded["offset_mapping"]:
        if not text[start:end].strip():
            continue  # white space at either end of a passage is stripped: it must not count as overlap
        if reached > 0:
            # tokens that share a character (its bytes) may not be parted
            if start >= reached:
                inner.append(len(positions))
                if text[start - 1].isspace() or text[start].isspace():
                    words.append(len(positions))
            positions.append(max(start, positions[-1]))
        reached = max(reached, end)
    last = len(positions)
    return _Cuts(text, [*positions, len(text)], [*words, last], [*inner, last])


def _fitting_end(cuts: _Cuts, first: int, done: int, tokenizer: Any, limit: int) -> int | None:
    """Return the last cut beyond ``done`` that leaves at most ``limit`` tokens from ``first`` on, or None."""
    for candidates in (cuts.words, cuts.all):
        high = bisect.bisect_right(candidates, first + limit)
        low = bisect.bisect_right(candidates, done)
        for index in reversed(range(low, high)):
            end = candidates[index]
            start_char, end_char = _strip(cuts.text, cuts.positions[first], cuts.positions[end])
            # a piece may have more tokens alone than it has within the text
            alone = tokenizer(cuts.text[start_char:end_char], add_special_tokens=False, verbose=False)
            if len(alone["input_ids"]) <= limit:
                return end
    return None


def _next_start(cuts: _Cuts, first: int, end: int, overlap: int) -> int:
    if overlap == 0:
        return end
    for candidates in (cuts.words, cuts.all):
        index = bisect.bisect_right(candidates, end - overlap) - 1
        if index >= 0 and candidates[index] > first:
            return candidates[index]
    return min(cuts.all[bisect.bisect_right(cuts.all, first)], end)


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
