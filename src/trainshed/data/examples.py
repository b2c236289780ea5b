"""A question with its answer, and loading them from any source that `rows` opens."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from trainshed.data.jsonl import json_type, write_jsonl
from trainshed.data.rows import open_rows
from trainshed.errors import DataError, did_you_mean, nearest
from trainshed.files import read_json

#: what marks a directory that `corpus.write_corpus` wrote
PASSAGES_FILE = "passages.jsonl"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class RagExample:
    """A question, the answer to train on, and what answers it.

    Attributes
    ----------
    query, response
        The question and its answer.
    id
        Unique within a dataset, or empty.
    passage_id
        The passage that answers, where it is known.
    kind
        What kind of question it is, where results are to be told apart.
    answers
        Every accepted answer; empty means ``(response,)``.
    """

    query: str
    response: str
    id: str = ""
    passage_id: str | None = None
    kind: str = ""
    answers: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every accepted answer, ``response`` among them."""
        return self.answers or (self.response,)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values, as `load_examples` reads it."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**row, "answers": list(self.answers)}


_FIELDS = tuple(item.name for item in fields(RagExample))
#: columns of the same rows that make the passage (see `assembling`); a mapping may name them too
PASSAGE_COLUMNS = ("text", "title", "source")


def load_examples(
    source: Any,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> list[RagExample]:
    """Load questions with answers from any source, and check every row.

    Parameters
    ----------
    source
        A path, a hub name or an object, as `rows.open_rows` lists them; ``"builtin"`` for the built-in
        corpus; or a list of `RagExample`, which comes back as it is.
    split
        Which split, where the source has several; ``train`` when None.
    columns
        Our names to the source's, such as ``{"query": "question", "response": "answer"}``. Names that are not
        given stand for themselves; a directory that `corpus.write_corpus` wrote has ours already. The
        response may be a list, or a dict with a list ``text`` as in SQuAD: the first is the response, and all
        are accepted.
    limit
        Read only the first so many rows.
    name
        Configuration of a hub dataset that has several.

    Returns
    -------
    list of RagExample
        In the order of the source. A row without an id gets its number, from 1.

    Raises
    ------
    DataError
        Names the file, the line or row and the column, and what would be right.
    """
    columns = _checked_columns(columns or {})
    if isinstance(source, str) and source == "builtin":
        from trainshed.data.builtin import builtin_split

        return builtin_split(split or "train")[:limit]
    if isinstance(source, str | os.PathLike) and is_corpus(Path(source)):
        columns = {}
    if isinstance(source, list | tuple) and source and all(isinstance(item, RagExample) for item in source):
        return list(source[:limit])
    return _checked_examples(islice(open_rows(source, split=split, name=name), limit), columns)


def _checked_examples(
    rows: Iterable[tuple[str, Mapping[str, Any]]], columns: Mapping[str, str]
) -> list[RagExample]:
    examples: list[RagExample] = []
    places: dict[str, str] = {}
    for number, (where, row) in enumerate(rows, start=1):
        example = _example(row, columns, where=where, number=number)
        if example.id in places:
            raise DataError(
                f"the id {example.id!r} stands at {places[example.id]} already",
                where=f"{where}, column {columns.get('id', 'id')!r}",
                fix="ids that are unique within a dataset, or no id column",
            )
        places[example.id] = where
        examples.append(example)
    return examples


def _checked_columns(columns: Mapping[str, str]) -> Mapping[str, str]:
    known = (*_FIELDS, *PASSAGE_COLUMNS)
    for ours in columns:
        if ours not in known:
            raise DataError(f"unknown column {ours!r}", where="data.columns", fix=did_you_mean(ours, known))
    return columns


def _example(row: Mapping[str, Any], columns: Mapping[str, str], *, where: str, number: int) -> RagExample:
    query = _text(_value(row, "query", columns, where), columns.get("query", "query"), where)
    theirs = _response_column(row, columns)
    answers = _answers(_value(row, "response", {**columns, "response": theirs}, where), theirs, where)
    extra = _optional(row, "answers", columns, where)
    if extra is not None and extra != []:
        answers = [answers[0], *_answers(extra, columns.get("answers", "answers"), where)]
    answers = list(dict.fromkeys(answers))
    identity = _optional(row, "id", columns, where)
    passage_id = _optional(row, "passage_id", columns, where)
    return RagExample(
        query=query,
        response=answers[0],
        id=str(number) if identity in (None, "") else _identifier(identity, "id", columns, where),
        passage_id=None if passage_id is None else _identifier(passage_id, "passage_id", columns, where),
        kind=str(_optional(row, "kind", columns, where) or ""),
        answers=tuple(answers) if len(answers) > 1 else (),
    )


def _response_column(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Return the column of the response; a column of accepted answers does where there is none."""
    if "response" not in columns and "response" not in row:
        answers = columns.get("answers", "answers")
        if answers in row:
            return answers
    return columns.get("response", "response")


def _value(row: Mapping[str, Any], ours: str, columns: Mapping[str, str], where: str) -> Any:
    theirs = columns.get(ours, ours)
    if theirs in row:
        return row[theirs]
    present = ", ".join(sorted(map(str, row))) or "none"
    near = nearest(theirs, map(str, row))
    hint = f"did you mean {near!r}? " if near else ""
    raise DataError(
        f"there is no column {theirs!r}",
        where=where,
        fix=f"{hint}Columns there: {present}. Say which one it is with data.columns: {{{ours}: <column>}}",
    )


def _optional(row: Mapping[str, Any], ours: str, columns: Mapping[str, str], where: str) -> Any:
    if ours in columns:
        return _value(row, ours, columns, where)
    return row.get(ours)


def _text(value: Any, column: str, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    found = "an empty string" if isinstance(value, str) else json_type(value)
    raise DataError(
        f"the value is {found}",
        where=f"{where}, column {column!r}",
        fix="text that is not empty; remove the row",
    )


def _answers(value: Any, column: str, where: str) -> list[str]:
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    if not isinstance(value, list | tuple):
        return [_text(value, column, where)]
    if not value:
        raise DataError(
            "the list of answers is empty",
            where=f"{where}, column {column!r}",
            fix="at least one answer; remove the row",
        )
    return [_text(item, f"{column}[{index}]", where) for index, item in enumerate(value)]


def _identifier(value: Any, ours: str, columns: Mapping[str, str], where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, columns.get(ours, ours), where)


def is_corpus(directory: Path) -> bool:
    """Return whether `corpus.write_corpus` wrote this directory, damaged or not."""
    try:
        return PASSAGES_FILE in read_json(directory / MANIFEST_FILE)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_examples(path: Path, examples: Iterable[RagExample]) -> None:
    """Write examples as JSON Lines, atomically."""
    write_jsonl(path, (example.to_json() for example in examples))
