"""Rows under our names, recognised, translated where they are of another layout, and checked.

Left out: opening sources (`rows`), and splits and mixtures (`loading`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from trainshed.config.formats import COLUMNS
from trainshed.data.conversion import CONVERSIONS, Placed
from trainshed.data.foreign import NOTES, Layout, foreign_layout, translate
from trainshed.data.formats import (
    KEPT_COLUMNS,
    NOT_KEPT,
    RowFormat,
    answers_to_turns,
    check_row,
    choose_format,
    fitting_formats,
    recognise_row,
)
from trainshed.errors import DataError, nearest


def read_checked(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    where: str,
    columns: Mapping[str, str] | None = None,
    accepts: Sequence[str] = (),
    wanted: str | None = None,
    like: RowFormat | None = None,
    conversational: bool = False,
) -> tuple[list[Placed], RowFormat, list[str]]:
    """Return rows with our columns, checked, their format, and what is to be said about them.

    Parameters
    ----------
    rows
        (place, row) pairs.
    where
        The dataset, for messages.
    columns
        Names of columns, ours to theirs.
    accepts, wanted
        As for `formats.choose_format`.
    like
        A format that the rows must have, that of the dataset's other split.
    conversational
        Whether Alpaca's rows become conversations rather than text in Stanford's template.

    Raises
    ------
    DataError
        When there is no row; names the row that does not fit the first one, or whose values are wrong.
    """
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        raise DataError("the dataset is empty", where=where, fix="give a dataset that has rows")
    layout, notes = _layout_of(first, columns or {}, where, conversational=conversational)
    place, ours = first[0], layout.ours(*first)
    there = _present(ours)
    name = choose_format(there, accepts=accepts, convertible=CONVERSIONS, wanted=wanted, where=place)
    fmt = recognise_row(there, name, place)
    if like is not None and fmt != like:
        raise DataError(
            f"the split holds rows of the format {fmt}, the training rows are {like}",
            where=place,
            fix="the same columns in every split",
        )
    # what becomes a prompt keeps all columns, for reward functions
    made = (target for target in accepts if target == fmt.name or (fmt.name, target) in CONVERSIONS)
    whole = fmt.name == "prompt" or next(made, None) == "prompt"
    if not whole and (left_out := _left_out(ours, fmt)):
        notes.append(f"{where}: left out, as rows of this format have no use for them: {left_out}")
    if others := [other for other in fitting_formats(there) if other != name]:
        notes.append(f"{where}: read as {fmt}; its columns also make {', '.join(others)}")
    checked = [
        (place, check_row(layout.ours(place, row), fmt, place, whole=whole))
        for place, row in chain([first], iterator)
    ]
    return checked, fmt, notes


@dataclass(frozen=True)
class _Layout:
    """How the rows of a dataset become ours, as its first row tells."""

    columns: Mapping[str, str]
    foreign: Layout | None
    turns: bool
    conversational: bool

    def ours(self, place: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row under our names."""
        made: Mapping[str, Any] = _renamed(row, self.columns)
        if self.foreign:
            made = translate(made, self.foreign, place, conversational=self.conversational)
        return answers_to_turns(made) if self.turns else made


def _layout_of(
    first: tuple[str, Mapping[str, Any]], columns: Mapping[str, str], where: str, *, conversational: bool
) -> tuple[_Layout, list[str]]:
    """Return how rows become ours, and what is to be said about it."""
    _check_columns(columns, first[1], first[0])
    notes: list[str] = []
    renamed = _renamed(first[1], columns)
    foreign = None if fitting_formats(_present(renamed)) else foreign_layout(_present(renamed))
    if foreign:
        kind = f"{foreign}-messages" if foreign == "alpaca" and conversational else foreign
        notes.append(f"{where}: {NOTES[kind]}")
    turns = isinstance(renamed.get("prompt"), list) and answers_to_turns(renamed) != renamed
    if turns:
        notes.append(f"{where}: the prompts are conversations: each answer becomes a turn of the assistant")
    return _Layout(columns, foreign, turns, conversational), notes


def _check_columns(columns: Mapping[str, str], row: Mapping[str, Any], where: str) -> None:
    for ours, theirs in columns.items():
        if theirs not in row:
            there = [str(column) for column in row]
            near = nearest(theirs, there)
            hint = f"did you mean {near!r}? " if near else ""
            raise DataError(
                f"there is no column {theirs!r}",
                where=f"{where}; data.columns: {{{ours}: {theirs}}}",
                fix=f"{hint}Columns there: {', '.join(sorted(there)) or 'none'}",
            )


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with our names; a column that stood under one of them already gives way."""
    taken = set(columns.values())
    rest = {k: v for k, v in row.items() if k not in taken and k not in columns}
    return {**rest, **{ours: row.get(theirs) for ours, theirs in columns.items()}}


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the columns that are null, as tables have them for rows of another kind.

    A judgement that is null stays: taken for not being there, bad answers would be trained on.
    """
    judgements = ("label", "chosen", "rejected")
    return {column: value for column, value in row.items() if value is not None or column in judgements}


def _left_out(row: Mapping[str, Any], fmt: RowFormat) -> str:
    """Return the columns that `formats.check_row` does not keep."""
    return ", ".join(
        sorted(
            c for c in row if c not in (*COLUMNS[fmt.name], *KEPT_COLUMNS, *NOT_KEPT) and row[c] is not None
        )
    )
