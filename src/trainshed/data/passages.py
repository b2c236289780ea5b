"""A passage: one retrievable piece of text, with where it comes from. Left out: cutting (see `chunking`)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trainshed.data.jsonl import json_type, write_jsonl
from trainshed.data.rows import open_rows
from trainshed.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable piece of text.

    Attributes
    ----------
    id
        Unique within a store.
    text
        What is embedded, retrieved and read.
    title
        Of the document or the section.
    doc_id, chunk_id
        The document it was cut from and its number there, from 0.
    start, end
        Span in characters of that document; both 0 when the passage is no span of it.
    source
        Path or address of the document.
    metadata
        Anything else that is JSON; stores filter on it.
    """

    id: str
    text: str
    title: str = ""
    doc_id: str = ""
    chunk_id: int = 0
    start: int = 0
    end: int = 0
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values; `from_json` is its inverse."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**row, "metadata": dict(self.metadata)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Passage":
        """Build a passage from a dict with at least ``id`` and ``text``.

        Raises
        ------
        DataError
            When a field is missing, unknown or of the wrong type.
        """
        known = [item.name for item in fields(cls)]
        for name in row:
            if name not in known:
                raise DataError(f"unknown field {name!r} of a passage", fix=did_you_mean(name, known))
        for name in ("id", "text"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                found = json_type(row[name]) if name in row else "nothing"
                found = "an empty string" if found == "a string" else found
                raise DataError(f"field {name!r} of a passage is {found}", fix="a string that is not empty")
        for name, kind in _OPTIONAL_TYPES.items():
            if not isinstance(row.get(name, kind()), kind):
                raise DataError(
                    f"field {name!r} of a passage is {json_type(row[name])}", fix=f"give {json_type(kind())}"
                )
        return cls(**row)


_OPTIONAL_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("title", "doc_id", "source"), str),
    **dict.fromkeys(("chunk_id", "start", "end"), int),
    "metadata": dict,
}


def read_passages(source: Any, *, columns: Mapping[str, str] | None = None) -> list[Passage]:
    """Read passages from what `write_passages` wrote, or from anything that `rows.open_rows` opens.

    Parameters
    ----------
    source
        Such as a ``.jsonl`` or ``.parquet`` file with a row a passage.
    columns
        Our names to the source's, such as ``{"id": "pid"}``. Columns that are no field of a passage become
        metadata; a row without an id gets its number, from 1.

    Raises
    ------
    DataError
        Names the file, the line or row and the column.
    """
    columns = columns or {}
    theirs = {columns.get(item.name, item.name): item.name for item in fields(Passage)}
    passages: list[Passage] = []
    places: dict[str, str] = {}
    for number, (where, row) in enumerate(open_rows(source), start=1):
        passage = _passage(row, theirs, where=where, number=number)
        if passage.id in places:
            raise DataError(
                f"the passage id {passage.id!r} stands at {places[passage.id]} already",
                where=where,
                fix="unique ids",
            )
        places[passage.id] = where
        passages.append(passage)
    return passages


def _passage(row: Mapping[str, Any], theirs: Mapping[str, str], *, where: str, number: int) -> Passage:
    known = {theirs[key]: value for key, value in row.items() if key in theirs and value is not None}
    if "text" not in known:
        wanted = next(key for key, name in theirs.items() if name == "text")
        raise DataError(
            f"there is no column {wanted!r}" if wanted not in row else f"the value of {wanted!r} is null",
            where=where,
            fix=f"columns there: {', '.join(sorted(map(str, row)))}. Say which one holds the text",
        )
    identity = known.get("id", number)
    known["id"] = str(identity) if isinstance(identity, int) else identity
    own = known.get("metadata")
    rest = {key: value for key, value in row.items() if key not in theirs}
    known["metadata"] = {**rest, **own} if isinstance(own, dict) else rest if own is None else own
    try:
        return Passage.from_json(known)
    except DataError as error:
        raise DataError(error.what, where=where, fix=error.fix) from None


def write_passages(path: Path, passages: Iterable[Passage]) -> None:
    """Write passages as JSON Lines, atomically."""
    write_jsonl(path, (passage.to_json() for passage in passages))
