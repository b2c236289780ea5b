"""Every kind of finding about training rows: how bad it is, what it is in words, and what would be right.

Left out: finding them (`inspection`) and showing them (`report`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["certain", "suspicious"]
#: share of sequences that may lose their whole answer before that is certainly wrong
MOST_CUT = 0.5
_PLACES_SHOWN = 3


@dataclass(frozen=True)
class Kind:
    """One kind of finding: how bad it is, what it is in words, and what would be right."""

    level: Level
    what: str
    fix: str


KINDS: Mapping[str, Kind] = {
    "all_masked": Kind(
        "certain",
        "rows of which the loss sees no token",
        "answers that are not empty; with training.assistant_only_loss a chat template that marks the "
        "assistant's turns with {% generation %}",
    ),
    "answer_cut": Kind(
        "suspicious",
        "sequences whose whole answer is beyond max_length, so that nothing is learned from them",
        "a larger training.max_length, or shorter prompts",
    ),
    "chosen_equals_rejected": Kind(
        "certain", "pairs whose chosen and rejected answers are the same", "remove the rows"
    ),
    "contradicting_labels": Kind(
        "suspicious",
        "answers that are good in one row and bad in another, for one prompt",
        "one judgement an answer",
    ),
    "double_bos": Kind(
        "certain",
        "sequences that begin with the token of a beginning twice",
        "take it out of the text: the tokenizer adds it",
    ),
    "double_eos": Kind(
        "suspicious",
        "sequences that end with the token of an end twice",
        "take it out of the text: the trainer or the chat template adds it",
    ),
    "duplicate_rows": Kind("suspicious", "rows that are there already", "remove them, or mean it"),
    "empty_answer": Kind("certain", "answers to learn that are empty", "remove the rows"),
    "empty_bad_answer": Kind(
        "suspicious", "bad answers that are empty", "remove the rows, or mean that silence is bad"
    ),
    "label_imbalance": Kind(
        "suspicious",
        "rows of the rarer label",
        "more of them, or weights of the classes (training.desirable_weight, undesirable_weight)",
    ),
    "length_bias": Kind(
        "suspicious",
        "pairs whose chosen answer is the longer one: length alone may be what is learned",
        "pairs of like length, or a loss that corrects for it (length-normalised, such as sigmoid_norm)",
    ),
    "missing_eos": Kind(
        "suspicious",
        "sequences that do not end with the tokenizer's token of an end: the model may not learn to stop",
        "a chat template that ends a turn with the tokenizer's eos_token, or an eos_token that the template "
        "writes",
    ),
    "no_eos_token": Kind(
        "certain", "rows, and the tokenizer has no token that ends a text", "set its eos_token"
    ),
    "one_class": Kind("certain", "rows, all with the same label", "rows of both labels"),
    "one_class_batches": Kind(
        "certain",
        "batches with one label only, from which nothing is learned",
        "rows in an order that mixes the labels, as loading puts them",
    ),
    "overlap_with_train": Kind(
        "suspicious",
        "rows whose prompt is trained on too",
        "data.validation_fraction, which keeps the rows of one prompt together, or other held-out rows",
    ),
    "prompt_no_prefix": Kind(
        "suspicious",
        "sequences that do not begin with the tokens of their prompt, so the model sees another prompt in "
        "training than in use",
        "a prompt that ends between tokens (no space at its end), or a chat template that writes it alike "
        "with and without an answer",
    ),
    "truncated": Kind(
        "suspicious", "sequences that are longer than max_length", "a larger training.max_length"
    ),
    "unknown_tokens": Kind(
        "suspicious",
        "tokens that the tokenizer does not know",
        "a tokenizer that was trained on such text",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something about the data that is wrong or looks so.

    Attributes
    ----------
    name
        What ``data.tolerate`` calls it.
    level
        ``certain`` stops a run, ``suspicious`` warns.
    split
        Where it was found.
    count, total
        How many of how many rows (or pairs, or batches).
    what
        In words.
    fix
        What would be right.
    places
        Where the first ones stand.
    """

    name: str
    level: Level
    split: str
    count: int
    total: int
    what: str
    fix: str
    places: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The finding in one line."""
        share = f" ({100 * self.count / self.total:.3g} %)" if self.total else ""
        return f"{self.split}: {self.what}: {self.count} of {self.total}{share} [{self.name}]"


@dataclass
class Tally:
    """Counts of findings, and where the first ones stand."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, place: str, count: int = 1) -> None:
        """Count a finding once more, or ``count`` times."""
        self.counts[name] = self.counts.get(name, 0) + count
        found = self.places.setdefault(name, [])
        if len(found) < _PLACES_SHOWN and place not in found:
            found.append(place)

    def findings(self, split: str, totals: Mapping[str, int], rows: int) -> list[Finding]:
        """Return what was counted in a split of so many rows; ``totals`` where it is no count of rows."""
        made = []
        for name, count in self.counts.items():
            kind, total = KINDS[name], totals.get(name, rows)
            level = kind.level
            if name == "answer_cut" and count > MOST_CUT * total:
                level = "certain"
            places = tuple(self.places[name])
            made.append(Finding(name, level, split, count, total, kind.what, kind.fix, places))
        return made
