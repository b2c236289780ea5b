"""Rows to tokens as the trainers of `trl` make them, in batches, with where the loss looks.

A plain answer gets the token that ends a text unless it ends with it; prompt and answer are tokenised
together, and the answer begins where that differs from the prompt alone. Conversations go through the chat
template, the prompt with the mark that lets the model speak (`trl` 1.16: ``_prepare_dataset`` of its
trainers). Left out: what is wrong with the result (`inspection`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainshed.data.formats import Row, RowFormat
from trainshed.errors import ConfigError, DataError

_AT_ONCE = 512


@dataclass(frozen=True)
class Treatment:
    """What a trainer does with its rows.

    Attributes
    ----------
    max_length
        Most tokens of a prompt with its answer; None cuts nothing.
    overlong
        What is done with longer ones: ``keep_start``, ``keep_end``, or ``drop`` the row (as reward training).
    completion_only
        Whether the loss looks at answers alone, where there is a prompt.
    assistant_only
        Of conversations without a prompt: whether it looks at the assistant's turns alone, which the chat
        template must mark (``{% generation %}``).
    append_eos
        Whether a plain text or answer gets the token that ends a text.
    chat_template
        In place of the tokenizer's own.
    batch_size
        Rows that one device takes at once in the order given; None where they are shuffled.
    """

    max_length: int | None = None
    overlong: Literal["keep_start", "keep_end", "drop"] = "keep_start"
    completion_only: bool = True
    assistant_only: bool = False
    append_eos: bool = True
    chat_template: str | None = None
    batch_size: int | None = None


#: of the trainers of trl, where the configuration does not say
_MAX_LENGTH = 1024
_CUTTING = frozenset({"bco", "cpo", "dpo", "gkd", "kto", "orpo", "reward", "sft"})
#: rows are taken in the order that loading gave them
_IN_ORDER = frozenset({"bco", "kto"})
_BATCH_SIZE = 8


def treatment_of(algorithm: str | None, values: Mapping[str, Any], fmt: RowFormat) -> Treatment:
    """Return what an algorithm does with its rows.

    Parameters
    ----------
    algorithm
        Its name; None for none in mind.
    values
        What ``training`` says: ``max_length``, ``truncation_mode``, ``completion_only_loss``,
        ``assistant_only_loss``, ``per_device_train_batch_size``, ``block_size``, ``prompt_loss_weight``.
    fmt
        Of the rows.
    """
    longest = values.get("max_length", _MAX_LENGTH if algorithm in _CUTTING else None)
    if algorithm in ("pretrain", "mamba"):
        # texts are cut into rows and packed; of a pair the start of the prompt gives way
        pairs = fmt.name != "text"
        return Treatment(
            max_length=values.get("block_size") if pairs else None,
            overlong="keep_end",
            completion_only=values.get("prompt_loss_weight") == 0,
        )
    if algorithm == "reward":
        return Treatment(max_length=longest, overlong="drop", completion_only=False)
    if algorithm == "gkd":
        return Treatment(max_length=longest, overlong="keep_end")
    size = int(values.get("per_device_train_batch_size") or _BATCH_SIZE)
    return Treatment(
        max_length=longest,
        overlong="keep_end" if values.get("truncation_mode") == "keep_end" else "keep_start",
        completion_only=values.get("completion_only_loss") is not False,
        assistant_only=bool(values.get("assistant_only_loss")),
        batch_size=size if algorithm in _IN_ORDER else None,
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence that a model sees.

    Attributes
    ----------
    name
        The column that it ends with: ``completion``, ``chosen``, ``rejected``, ``text``, ``messages``,
        ``prompt``.
    ids
        Its tokens, not yet cut to length.
    start
        Where the answer begins; 0 where there is no prompt, the length where there is no answer.
    prompt_tokens
        Tokens of the prompt alone: more than ``start`` where these are no prefix of ``ids``.
    trained
        1 where the loss looks, 0 elsewhere; as long as ``ids``.
    """

    name: str
    ids: list[int]
    start: int
    prompt_tokens: int
    trained: list[int]

    def cut(self, treatment: Treatment) -> slice:
        """Return which of its tokens are kept."""
        if treatment.max_length is None or treatment.overlong == "drop":
            return slice(None)
        if treatment.overlong == "keep_start":
            return slice(None, treatment.max_length)
        return slice(max(0, len(self.ids) - treatment.max_length), None)


def encode_rows(
    rows: Sequence[Row],
    places: Sequence[str],
    fmt: RowFormat,
    tokenizer: Any,
    treatment: Treatment,
) -> Iterator[tuple[int, list[Encoded]]]:
    """Yield (number of the row from 0, its sequences): two of a preference, one of any other row.

    Parameters
    ----------
    rows, places
        Checked, with an explicit prompt, and where each came from.
    fmt
        Their format.
    tokenizer
        Of `transformers`.
    treatment
        What the trainer does.

    Raises
    ------
    ConfigError
        When there are conversations and no chat template.
    DataError
        When the chat template refuses a row.
    """
    if fmt.conversational and not (treatment.chat_template or getattr(tokenizer, "chat_template", None)):
        raise ConfigError(
            "the rows are conversations, and the tokenizer has no chat template to write them with",
            where=f"tokenizer {getattr(tokenizer, 'name_or_path', '') or 'given'}",
            fix="a model that was trained on conversations, a chat_template.jinja beside its tokenizer, or "
            "plain rows (prompt and completion as text)",
        )
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        where = places[start : start + _AT_ONCE]
        yield from enumerate(_encode(part, where, fmt, tokenizer, treatment), start=start)


def _encode(
    rows: Sequence[Row], places: Sequence[str], fmt: RowFormat, tokenizer: Any, treatment: Treatment
) -> list[list[Encoded]]:
    write = _Writer(tokenizer, fmt, treatment, rows, places)
    if fmt.name in ("text", "messages"):
        wholes, masks = write.alone(fmt.name)
        return [
            [Encoded(fmt.name, ids, 0, 0, [1] * len(ids) if mask is None else mask)]
            for ids, mask in zip(wholes, masks, strict=True)
        ]
    prompts = write.prompts()
    if fmt.name == "prompt":
        return [[Encoded("prompt", ids, len(ids), len(ids), [0] * len(ids))] for ids in prompts]
    names = ("chosen", "rejected") if fmt.name == "preference" else ("completion",)
    answers = {name: write.with_answer(name) for name in names}
    made = []
    for number, prompt in enumerate(prompts):
        ends = {name: answers[name][number] for name in names}
        start = min(shared_length(prompt, ids) for ids in ends.values())
        made.append(
            [
                Encoded(name, ids, start, len(prompt), _trained(len(ids), start, treatment))
                for name, ids in ends.items()
            ]
        )
    return made


def _trained(length: int, start: int, treatment: Treatment) -> list[int]:
    masked = min(start, length) if treatment.completion_only else 0
    return [0] * masked + [1] * (length - masked)


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their start."""
    if other[: len(one)] == one:
        return len(one)
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


class _Writer:
    """Writes rows down as text and tokenises them, many at once."""

    def __init__(
        self, tokenizer: Any, fmt: RowFormat, treatment: Treatment, rows: Sequence[Row], places: Sequence[str]
    ) -> None:
        self.tokenizer, self.fmt, self.treatment = tokenizer, fmt, treatment
        self.rows, self.places = rows, places

    def alone(self, column: str) -> tuple[list[list[int]], list[list[int] | None]]:
        """Return the tokens of texts or whole conversations, and the assistant's turns where asked for."""
        if column == "text":
            return self._tokens([self._ended(row["text"]) for row in self.rows]), [None] * len(self.rows)
        conversations = [row["messages"] for row in self.rows]
        if not self.treatment.assistant_only:
            return self._tokens(self._rendered(conversations)), [None] * len(self.rows)
        ids: list[list[int]] = []
        masks: list[list[int] | None] = []
        for number, conversation in enumerate(conversations):
            found = self._template(
                [conversation], number, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            ids.append(list(found["input_ids"][0]))
            masks.append(list(found["assistant_masks"][0]))
        return ids, masks

    def prompts(self) -> list[list[int]]:
        """Return the tokens of the prompts alone."""
        prompts = [row["prompt"] for row in self.rows]
        if self.fmt.conversational:
            return self._tokens(self._rendered(prompts, add_generation_prompt=True))
        return self._tokens(prompts)

    def with_answer(self, column: str) -> list[list[int]]:
        """Return the tokens of the prompts with their answers."""
        if self.fmt.conversational:
            return self._tokens(self._rendered([[*row["prompt"], *row[column]] for row in self.rows]))
        return self._tokens([row["prompt"] + self._ended(row[column]) for row in self.rows])

    def _ended(self, text: str) -> str:
        end = self.tokenizer.eos_token
        if not self.treatment.append_eos or end is None or text.endswith(end):
            return text
        return f"{text}{end}"

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        # what a chat template wrote has its special tokens already
        found = self.tokenizer(
            texts,
            add_special_tokens=not self.fmt.conversational,
            return_attention_mask=False,
            verbose=False,
        )
        return found["input_ids"]

    def _rendered(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        if not any(row.get("tools") or row.get("chat_template_kwargs") for row in self.rows):
            try:
                return self._template(conversations, None, tokenize=False, **options)
            except DataError:
                pass  # which row it was is found below
        return [
            self._template([conversation], number, tokenize=False, **options)[0]
            for number, conversation in enumerate(conversations)
        ]

    def _template(self, conversations: Sequence[Any], number: int | None, **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        row = self.rows[number] if number is not None else {}
        tools = self._tools(row, number)
        try:
            return self.tokenizer.apply_chat_template(
                list(conversations),
                chat_template=self.treatment.chat_template,
                tools=tools,
                **row.get("chat_template_kwargs", {}),
                **options,
            )
        except TemplateError as error:
            raise DataError(
                f"the chat template does not take the conversation: {error}",
                where=self.places[number] if number is not None else None,
                fix="turns as the template expects them, or another chat template",
            ) from error

    def _tools(self, row: Row, number: int | None) -> Any:
        """Return the tools of a row; a table, which has no column of any functions, holds them as JSON."""
        tools = row.get("tools") or None
        if number is None or not isinstance(tools, str):
            return tools
        try:
            return json.loads(tools)
        except json.JSONDecodeError as error:
            raise DataError(
                f"the tools are not valid JSON: {error.msg}",
                where=f"{self.places[number]}, column 'tools'",
                fix="a list of functions, or such a list as JSON",
            ) from error
