"""Rows in the layouts of ShareGPT and Alpaca, made into formats of ours.

They are recognised by their columns, and whoever reads them says so. Left out: checking the result
(`formats.check_row`).
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from trainshed.data.jsonl import json_type
from trainshed.errors import DataError

Layout = Literal["sharegpt", "alpaca"]

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
#: the prompts that Alpaca's own rows were trained with (github.com/tatsu-lab/stanford_alpaca, train.py)
ALPACA_PROMPT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
NOTES: Mapping[str, str] = {
    "sharegpt": "read as ShareGPT: `conversations` of from and value become `messages`",
    "alpaca": "read as Alpaca: `instruction`, `input` and `output` become `prompt` (Stanford's template) and "
    "`completion`",
    "alpaca-messages": "read as Alpaca: `instruction` with `input`, and `output`, become `messages`",
}


def foreign_layout(columns: Collection[str]) -> Layout | None:
    """Return which layout the columns make, or None."""
    there = set(columns)
    if "conversations" in there:
        return "sharegpt"
    return "alpaca" if {"instruction", "output"} <= there else None


def translate(
    row: Mapping[str, Any], layout: Layout, where: str, *, conversational: bool = False
) -> dict[str, Any]:
    """Return a row with our columns; the ones that the layout does not know stay.

    Parameters
    ----------
    row
        As it was read.
    layout
        What `foreign_layout` said of the first row.
    where
        File and row, for messages.
    conversational
        Whether Alpaca becomes ``messages`` rather than text in Stanford's template.

    Returns
    -------
    dict
        ShareGPT: ``messages``; with ``chosen`` and ``rejected`` beside it, a preference whose prompt is the
        conversation. Alpaca: ``prompt`` and ``completion``, or ``messages``.

    Raises
    ------
    DataError
        When a role is unknown or a column is missing.
    """
    if layout == "sharegpt":
        return _sharegpt(row, where)
    return _alpaca(row, where, conversational=conversational)


def _sharegpt(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    rest = {k: v for k, v in row.items() if k not in ("conversations", "chosen", "rejected", "system")}
    turns = row.get("conversations")
    if not isinstance(turns, list):
        raise DataError(
            f"the conversation is {json_type(turns)}",
            where=f"{where}, column 'conversations'",
            fix='[{"from": "human", "value": "..."}, ...]',
        )
    messages = [_turn(turn, f"{where}, column 'conversations', turn {n}") for n, turn in enumerate(turns, 1)]
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.insert(0, {"role": "system", "content": row["system"]})
    if isinstance(row.get("chosen"), Mapping) and isinstance(row.get("rejected"), Mapping):
        answers = {name: [_turn(row[name], f"{where}, column {name!r}")] for name in ("chosen", "rejected")}
        return {**rest, "prompt": messages, **answers}
    return {**rest, "messages": messages}


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if isinstance(turn, Mapping) and "role" in turn:
        return dict(turn)
    if not isinstance(turn, Mapping) or not {"from", "value"} <= set(turn):
        raise DataError(
            "the turn has no from and value", where=where, fix='{"from": "human", "value": "..."}'
        )
    if turn["from"] not in _ROLES:
        raise DataError(f"the turn is from {turn['from']!r}", where=where, fix=f"one of {', '.join(_ROLES)}")
    return {"role": _ROLES[turn["from"]], "content": turn["value"]}


def _alpaca(row: Mapping[str, Any], where: str, *, conversational: bool) -> dict[str, Any]:
    known = ("instruction", "input", "output", "system", "history")
    rest = {k: v for k, v in row.items() if k not in known}
    for column in ("instruction", "output"):
        if not isinstance(row.get(column), str):
            raise DataError(
                f"the value is {json_type(row.get(column))}",
                where=f"{where}, column {column!r}",
                fix="text; remove the row",
            )
    given = row.get("input") or ""
    if not conversational:
        for column in ("system", "history"):
            if row.get(column):
                raise DataError(
                    f"Stanford's template has no place for {column!r}",
                    where=f"{where}, column {column!r}",
                    fix="trainshed data convert --to messages, which keeps it",
                )
        template = ALPACA_PROMPT_WITH_INPUT if given.strip() else ALPACA_PROMPT
        prompt = template.format(instruction=row["instruction"], input=given)
        return {**rest, "prompt": prompt, "completion": row["output"]}
    question = f"{row['instruction']}\n\n{given}" if given.strip() else row["instruction"]
    turns = [*(row.get("history") or ()), (question, row["output"])]
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.insert(0, {"role": "system", "content": row["system"]})
    return {**rest, "messages": messages}
