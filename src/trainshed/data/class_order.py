"""An order of good and bad answers in which no batch holds one class only.

KTO (arXiv 2402.01306) compares each answer with the others of its batch: a batch of good answers alone
teaches nothing. `trl` unpairs a preference dataset into all chosen, then all rejected, and goes through it in
order. It also estimates KL by giving each prompt the answer of the row before it in the batch (the first one
that of the last), which must not be an answer to the same prompt. Left out: sampling; the order holds where
rows are taken in sequence.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

#: rows that are tried for a swap; with one prompt for all of them there is none to find
_TRIES = 64


def interleave(
    rows: Sequence[Row], *, key: Callable[[Row], str], seed: int, batch_size: int = 8
) -> list[Row]:
    """Return rows with a ``label``, shuffled so that both classes are in every batch.

    With ``n`` rows, of which ``m`` are of the rarer class, and batches of ``batch_size`` >= 2 rows in order:

    - Every batch of two or more rows has both classes when ``m >= ceil(n / batch_size)``: when there is one
      for each batch. Where the classes are equally many they alternate, so that this holds for any run of two
      or more rows, wherever batches begin. Rows that are dropped afterwards undo this, so what a trainer
      would drop is to go before (`preparing` sees to that).
    - Where every prompt has one good and one bad answer and there are more prompts than ``batch_size``, the
      two never lie in one batch, so neither is the other's answer in the estimate of KL. Otherwise a row that
      is given an answer to its own prompt changes places with one of the next rows of its class, where that
      mends it; `shared_slots` counts what is left.

    Parameters
    ----------
    rows
        With a boolean ``label``.
    key
        The prompt of a row: rows with the same key answer the same.
    seed
        Decides the order; the same rows in another order may come out otherwise.
    batch_size
        Rows that one device takes at once.
    """
    classes = {label: [row for row in rows if bool(row["label"]) is label] for label in (True, False)}
    rare = len(classes[True]) < len(classes[False])
    if not classes[rare]:
        rare = not rare
    prompts = {id(row): key(row) for row in rows}
    rank = _ranks([prompts[id(row)] for row in rows], random.Random(f"{seed}:interleave"))
    queues = {label: _spread(part, prompts, rank) for label, part in classes.items()}
    # half a turn: the two answers to one prompt are as far apart as they can be
    half = -(-len(queues[False]) // 2)
    queues[False] = queues[False][half:] + queues[False][:half]
    total, few = len(rows), len(queues[rare])
    ordered, taken = [], {True: 0, False: 0}
    for place in range(total):
        # the rarer class comes each time its share has grown by one, and last of all
        label = rare if (place + 1) * few // total > place * few // total else not rare
        ordered.append(queues[label][taken[label]])
        taken[label] += 1
    return _separated(ordered, [prompts[id(row)] for row in ordered], batch_size)


def _ranks(prompts: Sequence[str], chance: random.Random) -> dict[str, int]:
    """Return each prompt's place in a shuffled order."""
    different = list(dict.fromkeys(prompts))
    chance.shuffle(different)
    return {prompt: place for place, prompt in enumerate(different)}


def _spread(rows: Sequence[Row], prompts: Mapping[int, str], rank: Mapping[str, int]) -> list[Row]:
    """Order rows by prompt, the second answer to a prompt only after the first one to every prompt."""
    seen: dict[str, int] = {}
    placed = []
    for number, row in enumerate(rows):
        prompt = prompts[id(row)]
        turn = seen.get(prompt, 0)
        seen[prompt] = turn + 1
        placed.append(((turn, rank[prompt], number), row))
    return [row for _, row in sorted(placed, key=lambda item: item[0])]


def _previous(place: int, total: int, batch_size: int) -> int:
    """Return the row whose answer a row is given: the one before it in its batch, the last for the first."""
    start = place - place % batch_size
    return place - 1 if place > start else min(start + batch_size, total) - 1


def _next(place: int, total: int, batch_size: int) -> int:
    start = place - place % batch_size
    return place + 1 if place + 1 < min(start + batch_size, total) else start


def shared_slots(rows: Sequence[Row], *, key: Callable[[Row], str], batch_size: int) -> list[int]:
    """Return the rows, from 0, that are given an answer to their own prompt in the estimate of KL."""
    prompts = [key(row) for row in rows]
    return [
        place
        for place in range(len(rows))
        if prompts[place] == prompts[_previous(place, len(rows), batch_size)]
    ]


def one_class_batches(rows: Sequence[Row], batch_size: int) -> list[int]:
    """Return the batches, from 0, of two or more rows that have good or bad answers alone."""
    found = []
    for number, start in enumerate(range(0, len(rows), batch_size)):
        labels = [bool(row["label"]) for row in rows[start : start + batch_size]]
        if len(labels) > 1 and len(set(labels)) == 1:
            found.append(number)
    return found


def _separated(ordered: list[Row], prompts: list[str], batch_size: int) -> list[Row]:
    """Swap rows of one class until none is given an answer to its own prompt, where a swap does that."""
    total = len(ordered)

    def clash(place: int) -> bool:
        return prompts[place] == prompts[_previous(place, total, batch_size)]

    def clashes(place: int) -> bool:
        return clash(place) or clash(_next(place, total, batch_size))

    for place in range(total):
        if not clash(place) or _previous(place, total, batch_size) == place:
            continue
        for step in range(1, min(total, _TRIES)):
            other = (place + step) % total
            if ordered[other]["label"] != ordered[place]["label"] or prompts[other] == prompts[place]:
                continue
            before = clashes(other)
            _swap(place, other, ordered, prompts)
            if not clashes(place) and (before or not clashes(other)):
                break
            _swap(place, other, ordered, prompts)
    return ordered


def _swap(one: int, other: int, *lists: list[Any]) -> None:
    for items in lists:
        items[one], items[other] = items[other], items[one]
