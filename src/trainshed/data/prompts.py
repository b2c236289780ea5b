"""Prompts to answer, with the columns that rewards read.

A row is ``{"prompt": ..., ...}``: a text or a list of messages, and whatever else a reward asks for, such as
``answer``. Left out: judging answers (`trainshed.rewards`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from trainshed.config.schema import DataSection
from trainshed.data.builtin import builtin_split
from trainshed.data.rows import has_split, open_rows
from trainshed.errors import ConfigError, DataError

Message = dict[str, Any]

#: what rewards call their own arguments, and what was answered before
_NOT_COLUMNS = frozenset({"prompt", "prompts", "completion", "completions"})
#: how a question of the built-in corpus stands in a prompt
_QUESTION = "Question: {query}\nAnswer:"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Parameters
    ----------
    prompt
        A text, or messages ``{"role": ..., "content": ...}`` of which the last is not the assistant's.
    columns
        What rewards may read besides.
    """

    prompt: str | list[Message]
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def conversational(self) -> bool:
        """Whether it is a list of messages."""
        return not isinstance(self.prompt, str)


def check_prompt(row: Mapping[str, Any], where: str) -> Prompt:
    """Return a row as a prompt.

    Raises
    ------
    DataError
        When it has none, or it is neither a text nor messages that wait for an answer.
    """
    found = row.get("prompt")
    if isinstance(found, str) and found.strip():
        prompt: str | list[Message] = found
    elif isinstance(found, list) and found and all(_is_message(item) for item in found):
        if found[-1]["role"] == "assistant":
            raise DataError(
                "the last message of the prompt is the assistant's: there is nothing left to answer",
                where=where,
                fix="end the prompt with a message of the user",
            )
        prompt = [dict(item) for item in found]
    else:
        raise DataError(
            f"the row has no prompt, but {', '.join(sorted(row)) or 'nothing'}",
            where=where,
            fix='{"prompt": "..."} or {"prompt": [{"role": "user", "content": "..."}]}; '
            "data.columns: {prompt: ...} names another column",
        )
    return Prompt(prompt, {name: value for name, value in row.items() if name not in _NOT_COLUMNS})


def as_prompts(rows: Iterable[Any], what: str = "the prompts given") -> list[Prompt]:
    """Return texts, rows and prompts as prompts, all texts or all messages.

    Raises
    ------
    DataError
        When one is none of these, or they are mixed; names it.
    """
    found: list[Prompt] = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            row = {"prompt": row}
        prompt = row if isinstance(row, Prompt) else check_prompt(row, f"{what}, row {number}")
        if found and prompt.conversational != found[0].conversational:
            raise DataError(
                "some prompts are texts and some are messages",
                where=f"{what}, row {number}",
                fix="make all of them the one or the other",
            )
        found.append(prompt)
    return found


def read_prompts(section: DataSection, split: str) -> list[Prompt]:
    """Read the prompts of a split.

    Parameters
    ----------
    section
        Names the dataset, its splits and columns; ``builtin`` is the questions of the built-in corpus, with
        columns ``answer`` and ``answers``.
    split
        ``train`` or ``validation``. A dataset without a validation split gives no prompts for it.

    Raises
    ------
    ConfigError
        When no dataset is named.
    DataError
        When it is missing, or a row holds no prompt; names file and row.
    """
    if section.dataset_name is None:
        raise ConfigError(
            "no dataset is named", where="data.dataset_name", fix="a .jsonl file with prompts, or builtin"
        )
    held_out = split != "train"
    name = section.validation_split if held_out else section.train_split
    limit = section.max_eval_samples if held_out else section.max_train_samples
    if section.dataset_name == "builtin":
        return _builtin(name)[:limit]
    config = section.dataset_config
    if held_out and not has_split(section.dataset_name, name, name=config):
        return []
    opened = open_rows(section.dataset_name, split=name, name=config)
    return as_prompts(
        check_prompt(_renamed(row, section.columns), where) for where, row in islice(opened, limit)
    )


def _builtin(split: str) -> list[Prompt]:
    return [
        Prompt(
            _QUESTION.format(query=example.query),
            {"answer": example.response, "answers": list(example.accepted)},
        )
        for example in builtin_split(split)
    ]


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with our names beside the given ones."""
    return {**row, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("role"), str) and "content" in item
