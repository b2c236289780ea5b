"""Recognising the format of training rows from their columns, and checking every row.

A format (`config.formats`) is plain, with texts, or conversational, with lists of ``{"role", "content"}``.
Nothing is guessed: columns under other names are mapped by ``data.columns``, and what fits no format or
several is an error that says what is there. Left out: converting between formats (`conversion`), and the
layouts of ShareGPT and Alpaca (`foreign`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainshed.config.formats import COLUMNS, FORMATS, describe_format
from trainshed.data.jsonl import json_type
from trainshed.errors import DataError, nearest
from trainshed.files import canonical_json

Row = dict[str, Any]
Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
#: columns that are kept beside those of a format; a prompt keeps all, for reward functions
KEPT_COLUMNS = ("id", "tools", "chat_template_kwargs", "image", "images", "margin")
#: what says which rows to take, and nothing about them
NOT_KEPT = ("split",)
#: the columns of which one value says whether a row is conversational
_CONTENT = ("messages", "prompt", "completion", "chosen", "rejected")
_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")


@dataclass(frozen=True, slots=True)
class RowFormat:
    """What the rows of a dataset look like.

    Attributes
    ----------
    name
        One of `config.formats.FORMATS`.
    conversational
        Whether the contents are lists of messages.
    implicit_prompt
        Of a preference: whether the prompt is the common start of ``chosen`` and ``rejected``.
    """

    name: str
    conversational: bool = False
    implicit_prompt: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns that hold content or a label."""
        if self.implicit_prompt:
            return ("chosen", "rejected")
        return COLUMNS[self.name]

    def __str__(self) -> str:
        kind = "conversational" if self.conversational else "plain"
        return f"{self.name}, {kind}" + (", prompt within the answers" if self.implicit_prompt else "")


def fitting_formats(columns: Collection[str]) -> list[str]:
    """Return the formats that columns make, without those that are a part of another one there.

    Rows with a label are ``unpaired`` and not also ``prompt-completion``: taken for that, the bad answers
    among them would be trained on.
    """
    there = set(columns)
    found = []
    if {"chosen", "rejected"} <= there:
        found.append("preference")
    if {"prompt", "completion", "label"} <= there:
        found.append("unpaired")
    elif {"prompt", "completion"} <= there:
        found.append("prompt-completion")
    if "messages" in there:
        found.append("messages")
    if "prompt" in there and not found:
        found.append("prompt")
    if "text" in there:
        found.append("text")
    return found


def choose_format(
    columns: Iterable[str],
    *,
    accepts: Sequence[str] = (),
    convertible: Collection[tuple[str, str]] = (),
    wanted: str | None = None,
    where: str = "the dataset",
) -> str:
    """Return the format to read rows as.

    Parameters
    ----------
    columns
        Of the rows, ours after mapping.
    accepts
        The formats that the algorithm takes, the best first; empty when there is none in mind.
    convertible
        The (source, target) pairs that can be converted.
    wanted
        What ``data.format`` says; then nothing is chosen, only checked.
    where
        For messages.

    Raises
    ------
    DataError
        When the columns make no such format, or several and nothing says which.
    """
    there = [str(column) for column in columns]
    if wanted is not None:
        needed = ("chosen", "rejected") if wanted == "preference" else COLUMNS[wanted]
        if set(needed) <= set(there):
            return wanted
        raise _no_format(there, (wanted,), where)
    fitting = fitting_formats(there)
    direct = [name for name in accepts if name in fitting]
    if direct:
        return direct[0]
    if not accepts:
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise DataError(
                f"the columns make several formats: {', '.join(map(describe_format, fitting))}",
                where=where,
                fix=f"say which with data.format, such as data.format: {fitting[0]}",
            )
    for name in fitting:
        if any((name, target) in convertible for target in accepts):
            return name
    raise _no_format(there, accepts or FORMATS, where)


def _no_format(columns: Sequence[str], wanted: Sequence[str], where: str) -> DataError:
    names = [name for fmt in wanted for name in COLUMNS[fmt]]
    missing = [name for name in dict.fromkeys(names) if name not in columns]
    near = {name: nearest(name, [c for c in columns if c not in names]) for name in missing}
    mapping = ", ".join(f"{name}: {near[name] or '<column>'}" for name in missing) or "<ours>: <theirs>"
    listed = "; ".join(map(describe_format, wanted))
    return DataError(
        f"the columns make no format that is taken here: {', '.join(sorted(columns)) or 'none'}",
        where=where,
        fix=f"taken: {listed}. Where a column has another name: data.columns: {{{mapping}}}",
    )


def recognise_row(row: Mapping[str, Any], name: str, where: str) -> RowFormat:
    """Return the format of a dataset called ``name`` from its first row.

    A plain ``prompt`` beside conversational answers which begin with it (as in UltraFeedback) is a prompt
    within the answers.
    """
    if name == "text":
        return RowFormat("text")
    if name == "messages":
        return RowFormat("messages", conversational=True)
    kinds = {c: isinstance(row.get(c), list) for c in COLUMNS[name] if c in _CONTENT and c in row}
    answers = [is_list for column, is_list in kinds.items() if column != "prompt"]
    conversational = answers[0] if answers else kinds["prompt"]
    if name == "preference" and ("prompt" not in kinds or (conversational and not kinds["prompt"])):
        return RowFormat(name, conversational, implicit_prompt=True)
    return RowFormat(name, conversational)


def answers_to_turns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in which an answer that is a text or a single message is a list of one message.

    For prompts that are conversations: the answer is then the assistant's next turn.
    """
    made = dict(row)
    for column in ("completion", "chosen", "rejected"):
        value = row.get(column)
        if isinstance(value, str):
            made[column] = [{"role": "assistant", "content": value}]
        elif isinstance(value, Mapping):
            made[column] = [value]
    return made


def check_row(row: Mapping[str, Any], fmt: RowFormat, where: str, *, whole: bool = False) -> Row:
    """Return a row with the columns that its format knows, checked.

    Parameters
    ----------
    row
        With our names for the columns.
    fmt
        What the first row of the dataset is.
    where
        File and line or row, for messages.
    whole
        Whether to keep all other columns too, as those of a prompt are.

    Raises
    ------
    DataError
        When a value is missing, empty, of another type, or plain among conversational ones.
    """
    checked: Row = {}
    for column in fmt.columns:
        if column not in row:
            raise DataError(
                f"the row has no column {column!r}",
                where=where,
                fix=f"every row as the first one: {describe_format(fmt.name)}; "
                f"columns here: {', '.join(sorted(map(str, row)))}",
            )
        checked[column] = _check_value(row, column, fmt, where)
    if fmt.implicit_prompt and isinstance(row.get("prompt"), str):
        _check_repeated_prompt(row["prompt"], checked["chosen"], where)
    extra: Iterable[str] = row if whole or fmt.name == "prompt" else KEPT_COLUMNS
    for column in extra:
        if column not in checked and column not in NOT_KEPT and row.get(column) is not None:
            checked[column] = row[column]
    return checked


def _check_value(row: Mapping[str, Any], column: str, fmt: RowFormat, where: str) -> Any:
    value, place = row[column], f"{where}, column {column!r}"
    if column == "label":
        return _check_label(value, place)
    if isinstance(value, list if not fmt.conversational else str):
        have, first = ("text", "a conversation") if isinstance(value, str) else ("a conversation", "text")
        raise DataError(
            f"the value is {have}, while the dataset's first row holds {first}",
            where=place,
            fix="one kind in a dataset; trainshed data convert --to messages makes conversations of texts",
        )
    # a bad answer may be empty; an empty good one would teach to say nothing
    bad = column == "rejected" or (column == "completion" and _is_bad(row))
    if fmt.conversational:
        messages = check_messages(value, place, may_be_empty=bad)
        _check_roles(messages, column, place, implicit=fmt.implicit_prompt)
        return messages
    if isinstance(value, str) and (value.strip() or bad):
        return value
    found = "empty" if isinstance(value, str) else json_type(value)
    raise DataError(f"the value is {found}", where=place, fix="text that is not empty; remove the row")


def _is_bad(row: Mapping[str, Any]) -> bool:
    return "label" in row and not row["label"]


def _check_label(value: Any, place: str) -> bool:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise DataError(
        f"the label is {json_type(value)}: {str(value)[:40]!r}",
        where=place,
        fix="true for an answer that is wanted, false for one that is not; where the column is something "
        "else, data.format: prompt-completion",
    )


def check_messages(value: Any, place: str, *, may_be_empty: bool = False) -> list[Message]:
    """Return a conversation, with keys that hold nothing left out.

    Parameters
    ----------
    value
        A list of mappings with ``role`` and ``content`` (text, or a list of typed parts); ``content`` may be
        missing beside ``tool_calls``.
    place
        File, row and column, for messages.
    may_be_empty
        Whether a message may say nothing.

    Raises
    ------
    DataError
        Names the message that is wrong.
    """
    if not isinstance(value, list | tuple) or not value:
        found = "an empty list" if isinstance(value, list | tuple) else json_type(value)
        raise DataError(
            f"the conversation is {found}", where=place, fix='[{"role": "user", "content": "..."}, ...]'
        )
    checked = []
    for number, message in enumerate(value):
        here = f"{place}, message {number + 1}"
        if not isinstance(message, Mapping) or "role" not in message:
            raise DataError(
                "the message has no role" if isinstance(message, Mapping) else f"it is {json_type(message)}",
                where=here,
                fix='{"role": "user", "content": "..."}',
            )
        role = message["role"]
        if role not in ROLES:
            raise DataError(f"the role is {role!r}", where=here, fix=f"one of {', '.join(ROLES)}")
        if role == "system" and number:
            raise DataError("a system message stands after others", where=here, fix="put it first")
        content = message.get("content")
        empty = may_be_empty and isinstance(content, str)
        if not _has_content(content) and not message.get("tool_calls") and not empty:
            found = "empty" if isinstance(content, str | list) else json_type(content)
            raise DataError(f"the content is {found}", where=here, fix="text; remove the row")
        checked.append({key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None})
    return checked


def _has_content(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return isinstance(content, list) and bool(content) and all(isinstance(part, Mapping) for part in content)


def _check_roles(messages: Sequence[Message], column: str, place: str, *, implicit: bool) -> None:
    roles = [message["role"] for message in messages]
    if column == "messages" or implicit:
        if "assistant" not in roles:
            raise DataError(
                "the conversation has no turn of the assistant, so there is nothing to learn",
                where=place,
                fix="remove the row, or train on prompts with an algorithm that generates",
            )
    elif column == "prompt":
        if roles[-1] not in ("user", "tool"):
            raise DataError(
                f"the prompt ends with a turn of the {roles[-1]}",
                where=place,
                fix="end it with a turn of the user; what the model is to say belongs to the completion",
            )
    elif roles[0] != "assistant":
        raise DataError(
            f"the answer begins with a turn of the {roles[0]}",
            where=place,
            fix="begin it with a turn of the assistant; what comes before belongs to the prompt",
        )


def _check_repeated_prompt(prompt: str, chosen: str | Sequence[Message], where: str) -> None:
    if isinstance(chosen, str):
        raise DataError(
            "the row has a prompt, and the dataset's first row has none",
            where=f"{where}, column 'prompt'",
            fix="a prompt in every row, or in none",
        )
    if not any(message.get("content") == prompt for message in chosen[:2]):
        raise DataError(
            "the prompt is text and not what the conversations of chosen and rejected begin with",
            where=f"{where}, column 'prompt'",
            fix="a conversation as prompt, or rows without the column",
        )


def prompt_key(row: Mapping[str, Any], fmt: RowFormat) -> str:
    """Return what rows with the same prompt have in common, whatever its spaces and case.

    Of a conversation it is what stands before the first turn of the assistant; of a text the whole.
    """
    if fmt.name == "text":
        return _folded(row["text"])
    if not fmt.conversational:
        if fmt.implicit_prompt:
            return _folded(common_start(row["chosen"], row["rejected"]))
        return _folded(row["prompt"])
    column = "messages" if fmt.name == "messages" else "chosen" if fmt.implicit_prompt else "prompt"
    before = []
    for message in row[column]:
        if message["role"] == "assistant":
            break
        before.append([message["role"], message.get("content")])
    return _folded(canonical_json(before))


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def common_start(one: str, other: str) -> str:
    """Return the start that two texts share, in whole words; after ``Assistant:`` where they have that.

    Cut between letters, as `trl.extract_prompt` does, ``is blue`` and ``is black`` would share ``is bl``.
    """
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    start = one[:length]
    turn = start.rfind("\n\nAssistant:")
    if turn >= 0:
        return start[: turn + len("\n\nAssistant:")]
    if length == len(one) or length == len(other):
        longer = other if length == len(one) else one
        if length == len(longer) or longer[length].isspace():
            return start
    cut = len(start)
    while cut and not start[cut - 1].isspace():
        cut -= 1
    return start[:cut].rstrip()
