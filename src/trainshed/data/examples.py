"""A question with its answer, and loading them from any source. Left out: reading sources (see `rows`)."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trainshed.data.jsonl import read_jsonl, write_jsonl


@dataclass(frozen=True, slots=True)
class RagExample:
    """A question, the answer to train on, and what answers it.

    Attributes
    ----------
    query, response
        The question and its answer.
    id
        Unique within a data set, or empty.
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


def read_examples(path: Path) -> list[RagExample]:
    """Read the JSON Lines that `write_examples` wrote."""
    return [RagExample(**{**row, "answers": tuple(row["answers"])}) for _, row in read_jsonl(path)]


def write_examples(path: Path, examples: Iterable[RagExample]) -> None:
    """Write examples as JSON Lines, atomically."""
    write_jsonl(path, (example.to_json() for example in examples))
