"""From the format that a dataset has to the one that an algorithm needs.

| from | to |
| :-- | :-- |
| preference | unpaired, prompt-completion and messages (the chosen answer), prompt |
| unpaired | prompt-completion and messages (the wanted answers), prompt |
| prompt-completion | messages, prompt |
| messages | prompt-completion (the last turn of the assistant), prompt |

A prompt made of a row with an answer keeps it as text in the column ``answer``, for reward functions. Plain
text has no prompt, and nothing is made into plain text: how the parts are joined is for a chat template to
say. Left out: recognising formats (`formats`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trainshed.config.formats import describe_format
from trainshed.data.class_order import interleave
from trainshed.data.formats import Message, Row, RowFormat, common_start, prompt_key
from trainshed.errors import DataError
from trainshed.files import canonical_json

#: a row with the place that it came from
Placed = tuple[str, Row]


def convert(
    rows: Sequence[Placed], source: RowFormat, target: str, *, seed: int = 0, batch_size: int = 8
) -> tuple[list[Placed], RowFormat]:
    """Return rows in another format, and what that is; in their own a preference gets an explicit prompt.

    Parameters
    ----------
    rows
        With their places, as `formats.check_row` gives them.
    source
        Their format.
    target
        Name of the format to make.
    seed
        Decides the order of unpaired answers.
    batch_size
        Rows that one device takes at once; no such batch of unpaired answers has one class only, as far as
        `class_order.interleave` can see to that.

    Raises
    ------
    DataError
        When there is no way from one to the other, or a row does not have what it takes.
    """
    if source.name == target and target != "unpaired" and not source.implicit_prompt:
        return list(rows), source
    if source.implicit_prompt:
        rows, source = (
            [(where, explicit_prompt(row, where)) for where, row in rows],
            RowFormat(source.name, source.conversational),
        )
        if source.name == target:
            return list(rows), source
    if (source.name, target) not in CONVERSIONS:
        raise DataError(
            f"{describe_format(source.name)} cannot be made into {describe_format(target)}",
            where="the dataset",
            fix=_reachable(source.name),
        )
    made = [pair for where, row in rows for pair in _each(row, where, source, target)]
    if not made:
        raise DataError(
            f"nothing is left of the rows as {describe_format(target)}",
            where="the dataset",
            fix="unpaired rows need some with label: true",
        )
    fmt = RowFormat(target, conversational=source.conversational or target == "messages")
    if target == "unpaired":
        places = {id(row): where for where, row in made}
        ordered = interleave(
            [row for _, row in made], key=lambda row: prompt_key(row, fmt), seed=seed, batch_size=batch_size
        )
        return [(places[id(row)], row) for row in ordered], fmt
    return (_distinct(made) if target == "prompt" else made), fmt


def _reachable(source: str) -> str:
    targets = sorted(target for start, target in CONVERSIONS if start == source)
    if not targets:
        return "a dataset with prompts: text alone does not say where an answer begins"
    return f"from {source} there is a way to {', '.join(targets)}"


def explicit_prompt(row: Mapping[str, Any], where: str) -> Row:
    """Return a preference with the common start of its answers as ``prompt``.

    Of conversations it is what they share up to a turn of the user; of texts the shared words, or what goes
    up to the last shared ``Assistant:``.

    Raises
    ------
    DataError
        When the answers share no start, or one of them is nothing beyond it.
    """
    chosen, rejected = row["chosen"], row["rejected"]
    rest = {k: v for k, v in row.items() if k not in ("prompt", "chosen", "rejected")}
    if isinstance(chosen, str):
        length = len(common_start(chosen, rejected))
    else:
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        length = shared
        while length and (
            length == min(len(chosen), len(rejected)) or chosen[length - 1]["role"] not in _ASKING
        ):
            length -= 1
    prompt, answers = chosen[:length], (chosen[length:], rejected[length:])
    if not prompt or not all(answers):
        raise DataError(
            "chosen and rejected begin with nothing in common"
            if not prompt
            else "the prompt within chosen and rejected cannot be told from the answers",
            where=where,
            fix="a column `prompt`, or answers that begin with the same prompt and then differ",
        )
    if not isinstance(chosen, str):
        for answer in answers:
            if answer[0]["role"] != "assistant":
                raise DataError(
                    f"after what chosen and rejected share comes a turn of the {answer[0]['role']}",
                    where=where,
                    fix="conversations that differ from a turn of the assistant on",
                )
    return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1], **rest}


_ASKING = ("user", "tool")
Step = Callable[[Row, RowFormat], Iterable[Row]]


def _each(row: Row, where: str, source: RowFormat, target: str) -> Iterable[Placed]:
    made = list(CONVERSIONS[source.name, target](row, source))
    if not made and source.name == "messages":
        raise DataError(
            "the assistant speaks first, so there is no prompt",
            where=where,
            fix="remove the row, or train on conversations as they are",
        )
    return [(where, one) for one in made]


def _rest(row: Row, *without: str) -> Row:
    return {key: value for key, value in row.items() if key not in without}


def _unpaired(row: Row, fmt: RowFormat) -> Iterable[Row]:
    rest = _rest(row, "prompt", "chosen", "rejected", "margin")
    for column, label in (("chosen", True), ("rejected", False)):
        yield {"prompt": row["prompt"], "completion": row[column], "label": label, **rest}


def _same(row: Row, fmt: RowFormat) -> Iterable[Row]:
    return (dict(row),)


def _chosen_completion(row: Row, fmt: RowFormat) -> Iterable[Row]:
    rest = _rest(row, "prompt", "chosen", "rejected", "margin")
    return ({"prompt": row["prompt"], "completion": row["chosen"], **rest},)


def _wanted_completion(row: Row, fmt: RowFormat) -> Iterable[Row]:
    return (_rest(row, "label"),) if row["label"] else ()


def _conversation(row: Row, fmt: RowFormat) -> Iterable[Row]:
    prompt, completion = row["prompt"], row["completion"]
    if not fmt.conversational:
        prompt = [{"role": "user", "content": prompt.strip()}]
        completion = [{"role": "assistant", "content": completion.strip()}]
    return ({"messages": [*prompt, *completion], **_rest(row, "prompt", "completion")},)


def _last_turn(row: Row, fmt: RowFormat) -> Iterable[Row]:
    messages: list[Message] = row["messages"]
    last = max(n for n, message in enumerate(messages) if message["role"] == "assistant")
    begin = last
    while begin and messages[begin - 1]["role"] not in _ASKING:
        begin -= 1
    if not begin:
        return ()
    return ({"prompt": messages[:begin], "completion": messages[begin : last + 1], **_rest(row, "messages")},)


def _prompt_with_answer(row: Row, fmt: RowFormat) -> Iterable[Row]:
    answer = {"answer": _text(row["completion"])} if "answer" not in row else {}
    return ({"prompt": row["prompt"], **answer, **_rest(row, "prompt", "completion")},)


def _bare_prompt(row: Row, fmt: RowFormat) -> Iterable[Row]:
    return ({"prompt": row["prompt"], **_rest(row, "prompt", "chosen", "rejected", "completion", "label")},)


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion.strip()
    content = completion[-1].get("content")
    return content.strip() if isinstance(content, str) else ""


def _then(*steps: Step) -> Step:
    def chain(row: Row, fmt: RowFormat) -> Iterable[Row]:
        rows: list[Row] = [row]
        for step in steps:
            rows = [made for one in rows for made in step(one, fmt)]
        return rows

    return chain


CONVERSIONS: Mapping[tuple[str, str], Step] = {
    ("messages", "prompt"): _then(_last_turn, _prompt_with_answer),
    ("messages", "prompt-completion"): _last_turn,
    ("preference", "messages"): _then(_chosen_completion, _conversation),
    ("preference", "prompt"): _bare_prompt,
    ("preference", "prompt-completion"): _chosen_completion,
    ("preference", "unpaired"): _unpaired,
    ("prompt-completion", "messages"): _conversation,
    ("prompt-completion", "prompt"): _prompt_with_answer,
    ("unpaired", "messages"): _then(_wanted_completion, _conversation),
    ("unpaired", "prompt"): _bare_prompt,
    ("unpaired", "prompt-completion"): _wanted_completion,
    ("unpaired", "unpaired"): _same,
}
"""(source, target) to what makes rows of the one from a row of the other."""


def choose_target(source: str, accepts: Sequence[str]) -> str:
    """Return the format to make of ``source`` for an algorithm that takes ``accepts``, the best first.

    Raises
    ------
    DataError
        When there is no way to any of them.
    """
    if source in accepts:
        return source
    for target in accepts:
        if (source, target) in CONVERSIONS:
            return target
    raise DataError(
        f"{describe_format(source)} cannot be made into {' or '.join(map(describe_format, accepts))}",
        where="the dataset",
        fix=_reachable(source),
    )


def _distinct(rows: Sequence[Placed]) -> list[Placed]:
    """Return one row a prompt and answer: what had several answers is one question."""
    found: dict[str, Placed] = {}
    for where, row in rows:
        found.setdefault(canonical_json([row["prompt"], str(row.get("answer"))]), (where, row))
    return list(found.values())
