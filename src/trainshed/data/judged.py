"""Completions that people or programs have judged: desired or not, alone or in pairs.

Left out: conversion between other formats.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from trainshed.config.schema import DataSection
from trainshed.data.builtin import builtin_split
from trainshed.data.examples import RagExample
from trainshed.data.rows import has_split, open_rows
from trainshed.errors import ConfigError, DataError

Text = str | list[dict[str, Any]]

_QUESTION = "Question: {query}\nAnswer:"


@dataclass(frozen=True, slots=True)
class JudgedCompletion:
    """One completion with its judgement.

    Parameters
    ----------
    prompt, completion
        Texts, or messages.
    label
        Whether it is desired.
    pair
        Which pair it comes from, or None; both of a pair stand one after the other, the desired one first.
    """

    prompt: Text
    completion: Text
    label: bool
    pair: int | None = None


def as_judged(rows: Iterable[Any], what: str = "the rows given") -> list[JudgedCompletion]:
    """Return rows as judged completions; a pair gives two.

    Parameters
    ----------
    rows
        ``{"prompt": ..., "completion": ..., "label": true}`` or
        ``{"prompt": ..., "chosen": ..., "rejected": ...}``, or (where, row) pairs of them.
    what
        Where they are, for messages.

    Raises
    ------
    DataError
        When a row is neither, or all completions are of one kind; names it.
    """
    found: list[JudgedCompletion] = []
    for number, item in enumerate(rows, start=1):
        where, row = item if isinstance(item, tuple) else (f"{what}, row {number}", item)
        found += _judged(row, where, number)
    if found and len({row.label for row in found}) < 2:
        kind = "desired" if found[0].label else "undesired"
        raise DataError(
            f"all {len(found)} completions are {kind}: there is nothing to tell apart",
            where=what,
            fix="give both kinds",
        )
    return found


def read_judged(section: DataSection, split: str) -> list[JudgedCompletion]:
    """Read the judged completions of a split; ``builtin`` is questions with a right and a wrong answer.

    Raises
    ------
    ConfigError
        When no dataset is named.
    DataError
        When it is missing or a row is not judged; names file and row.
    """
    if section.dataset_name is None:
        raise ConfigError("no dataset is named", where="data.dataset_name", fix="a .jsonl file, or builtin")
    held_out = split != "train"
    name = section.validation_split if held_out else section.train_split
    limit = section.max_eval_samples if held_out else section.max_train_samples
    if section.dataset_name == "builtin":
        return as_judged(islice(_builtin(name), limit), "the built-in corpus")
    config = section.dataset_config
    if held_out and not has_split(section.dataset_name, name, name=config):
        return []
    opened = open_rows(section.dataset_name, split=name, name=config)
    renamed = (
        (where, {**row, **{ours: row[theirs] for ours, theirs in section.columns.items() if theirs in row}})
        for where, row in islice(opened, limit)
    )
    return as_judged(renamed, section.dataset_name)


def _judged(row: Mapping[str, Any], where: str, number: int) -> list[JudgedCompletion]:
    prompt: Any = row.get("prompt")
    if _is_text(prompt) and _is_text(row.get("chosen")) and _is_text(row.get("rejected")):
        if row["chosen"] == row["rejected"]:
            raise DataError("chosen and rejected are the same", where=where, fix="leave the row out")
        return [
            JudgedCompletion(prompt, row["chosen"], True, number),
            JudgedCompletion(prompt, row["rejected"], False, number),
        ]
    if _is_text(prompt) and _is_text(row.get("completion")) and isinstance(row.get("label"), bool | int):
        return [JudgedCompletion(prompt, row["completion"], bool(row["label"]))]
    raise DataError(
        f"the row is no judged completion; it has {', '.join(sorted(row)) or 'nothing'}",
        where=where,
        fix='{"prompt", "completion", "label"} or {"prompt", "chosen", "rejected"}; see data.columns',
    )


def _is_text(value: Any) -> bool:
    return bool(value) and (
        isinstance(value, str) or (isinstance(value, list) and all(isinstance(m, Mapping) for m in value))
    )


def _builtin(split: str) -> Iterator[dict[str, str]]:
    """Yield questions with their answer and the next one that answers a question of another kind.

    What kind of answer a question wants can be learned from its words; which answer of that kind is right
    cannot be without the passages.
    """
    examples = builtin_split(split)
    for place, example in enumerate(examples):
        others = (*examples[place + 1 :], *examples[:place])
        wrong = next((e.response for e in others if _is_wrong(e, example)), None)
        if wrong is not None:
            prompt = _QUESTION.format(query=example.query)
            yield {"prompt": prompt, "chosen": f" {example.response}", "rejected": f" {wrong}"}


def _is_wrong(other: RagExample, example: RagExample) -> bool:
    return other.kind != example.kind and other.response not in example.accepted
