"""What a model will see of its training rows, and what is wrong with them, before the first step.

Rows are tokenised as the trainer will (`encoding`), in batches, and each once. What is certainly wrong stops
a run, what is suspicious warns; every kind of finding is listed in `findings.KINDS`. Left out: wrong values
and types, which loading refuses (`formats`), and how a report looks (`report`).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trainshed.data.class_order import one_class_batches
from trainshed.data.encoding import Encoded, Treatment, encode_rows
from trainshed.data.findings import KINDS, Finding, Tally
from trainshed.data.formats import Row, RowFormat, prompt_key
from trainshed.data.loading import TRAIN, TrainingRows
from trainshed.data.report import DataReport, Example, SplitReport, show_report
from trainshed.errors import ConfigError, did_you_mean
from trainshed.files import canonical_json, digest_text

#: share of pairs whose chosen answer is longer, from which on length may be what is learned
LENGTH_BIAS = 0.8
#: share of the rarer class below which labels are suspicious
FEWEST_OF_A_CLASS = 0.2
#: share of tokens that the tokenizer does not know
MOST_UNKNOWN = 0.01
#: fewest pairs for which a share of them says anything
_FEWEST_PAIRS = 20


def inspect_rows(
    loaded: TrainingRows, tokenizer: Any | None = None, treatment: Treatment | None = None, *, shown: int = 3
) -> DataReport:
    """Look at every row of every split.

    Parameters
    ----------
    loaded
        What a trainer will train on and hold out, in the format that it takes.
    tokenizer
        Its tokenizer; without one only what can be told from text is.
    treatment
        What it does with the rows.
    shown
        How many rows of each split to decode.

    Raises
    ------
    ConfigError, DataError
        When rows cannot be tokenised at all; see `encoding.encode_rows`.
    """
    treatment = treatment or Treatment()
    splits: dict[str, SplitReport] = {}
    findings: list[Finding] = []
    trained: set[str] = set()
    lost: dict[str, tuple[int, ...]] = {}
    for split, rows in loaded.splits.items():
        places = loaded.places[split]
        tally = Tally()
        keys = [prompt_key(row, loaded.format) for row in rows]
        _look_at_rows(rows, places, keys, loaded.format, tally)
        if split == TRAIN:
            trained = set(keys)
            _look_at_batches(rows, loaded.format, treatment, tally)
        else:
            for key, place in zip(keys, places, strict=True):
                if key in trained:
                    tally.add("overlap_with_train", place)
        totals = _pair_totals(rows, loaded.format, treatment)
        report = SplitReport(rows=len(rows), labels=_labels(rows, loaded.format))
        if tokenizer is not None:
            look = _TokenLook(tokenizer, loaded.format, treatment, tally, shown)
            for number, sequences in encode_rows(rows, places, loaded.format, tokenizer, treatment):
                look.take(number, places[number], sequences)
            lost[split] = tuple(look.lost)
            report = look.report(len(rows), report.labels)
            totals |= look.totals()
        splits[split] = report
        findings += tally.findings(split, totals, len(rows))
    findings.sort(key=lambda finding: finding.level != "certain")
    told = asdict(treatment) if tokenizer is not None else {}
    return DataReport(str(loaded.format), splits, tuple(findings), loaded.notes, told, lost)


def check_before_training(
    loaded: TrainingRows,
    tokenizer: Any,
    treatment: Treatment,
    *,
    directory: Path | None = None,
    tolerate: Collection[str] = (),
    shown: int = 3,
) -> DataReport:
    """Inspect, print, write ``data_report.json`` into ``directory``, and stop for what is certainly wrong.

    Raises
    ------
    ConfigError
        When ``tolerate`` names no kind of finding.
    DataError
        For findings that are certain and not in ``tolerate``; the report is printed and written before.
    """
    for name in tolerate:
        if name not in KINDS:
            raise ConfigError(
                f"there is no finding {name!r}", where="data.tolerate", fix=did_you_mean(name, KINDS)
            )
    report = inspect_rows(loaded, tokenizer, treatment, shown=shown)
    show_report(report)
    if directory is not None:
        report.write(directory)
    report.check(tolerate)
    return report


def _labels(rows: Sequence[Row], fmt: RowFormat) -> dict[str, int]:
    if fmt.name != "unpaired":
        return {}
    good = sum(bool(row["label"]) for row in rows)
    return {"true": good, "false": len(rows) - good}


def _pair_totals(rows: Sequence[Row], fmt: RowFormat, treatment: Treatment) -> dict[str, int]:
    return {"one_class_batches": -(-len(rows) // treatment.batch_size)} if treatment.batch_size else {}


def _answers(row: Row, fmt: RowFormat) -> list[tuple[Any, bool]]:
    """Return the answers of a row, each with whether it is a good one."""
    if fmt.name == "preference":
        return [(row["chosen"], True), (row["rejected"], False)]
    if fmt.name == "unpaired":
        return [(row["completion"], bool(row["label"]))]
    if fmt.name == "prompt-completion":
        return [(row["completion"], True)]
    return []


def _is_empty(answer: Any) -> bool:
    if isinstance(answer, str):
        return not answer.strip()
    return not any(message.get("content") or message.get("tool_calls") for message in answer)


def _look_at_rows(
    rows: Sequence[Row], places: Sequence[str], keys: Sequence[str], fmt: RowFormat, tally: Tally
) -> None:
    """Find what texts alone tell."""
    seen: dict[str, str] = {}
    judged: dict[tuple[str, str], bool] = {}
    for row, place, key in zip(rows, places, keys, strict=True):
        content = digest_text(canonical_json([row.get(column) for column in fmt.columns]))
        # a mixture that repeats a source repeats its places: that is meant
        if seen.setdefault(content, place) != place:
            tally.add("duplicate_rows", place)
        answers = _answers(row, fmt)
        for answer, good in answers:
            if _is_empty(answer):
                tally.add("empty_answer" if good else "empty_bad_answer", place)
            if fmt.name != "prompt-completion":
                told = (key, canonical_json(answer))
                if judged.setdefault(told, good) != good and len({str(a) for a, _ in answers}) == len(
                    answers
                ):
                    tally.add("contradicting_labels", place)
        if fmt.name == "preference" and row["chosen"] == row["rejected"]:
            tally.add("chosen_equals_rejected", place)
    if fmt.name == "preference":
        _look_at_lengths(rows, places, tally)


def _look_at_lengths(rows: Sequence[Row], places: Sequence[str], tally: Tally) -> None:
    longer = [
        place
        for row, place in zip(rows, places, strict=True)
        if _characters(row["chosen"]) > _characters(row["rejected"])
    ]
    if len(rows) >= _FEWEST_PAIRS and len(longer) > LENGTH_BIAS * len(rows):
        tally.add("length_bias", longer[0], len(longer))


def _characters(answer: Any) -> int:
    if isinstance(answer, str):
        return len(answer)
    return sum(len(str(message.get("content") or "")) for message in answer)


def _look_at_batches(rows: Sequence[Row], fmt: RowFormat, treatment: Treatment, tally: Tally) -> None:
    """Find labels that are all the same, rare, or apart from each other in the order of the rows."""
    if fmt.name != "unpaired" or not rows:
        return
    rarer = min(_labels(rows, fmt).values())
    if rarer == 0:
        tally.add("one_class", "every row", len(rows))
        return
    if rarer < FEWEST_OF_A_CLASS * len(rows):
        tally.add("label_imbalance", "all rows", rarer)
    size = treatment.batch_size
    if size is None or rarer < -(-len(rows) // size):
        return  # shuffled, or too few of a class for every batch, which loading says
    for batch in one_class_batches(rows, size):
        tally.add("one_class_batches", f"rows {batch * size + 1} to {min((batch + 1) * size, len(rows))}")


class _TokenLook:
    """Finds what tokens tell, row by row, and keeps the first rows and every length."""

    def __init__(
        self, tokenizer: Any, fmt: RowFormat, treatment: Treatment, tally: Tally, shown: int
    ) -> None:
        self.tokenizer, self.fmt, self.treatment, self.tally = tokenizer, fmt, treatment, tally
        self.shown = shown
        self.examples: list[Example] = []
        self.lost: list[int] = []
        self.lengths: dict[str, list[int]] = {"prompt": [], "answer": [], "whole": []}
        self.sequences = self.tokens = self.truncated = self.cut = 0
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.unknown = tokenizer.unk_token_id

    def take(self, number: int, place: str, sequences: Sequence[Encoded]) -> None:
        """Look at one row."""
        cut = self.cut
        for one in sequences:
            self._count(one)
            self._look_at_ends(one, place)
            self._look_at_cut(one, place)
            if one.prompt_tokens > one.start:
                self.tally.add("prompt_no_prefix", place)
            if self.unknown is not None and (count := one.ids.count(self.unknown)):
                self.tally.add("unknown_tokens", place, count)
        if self.cut > cut:
            self.lost.append(number)
        if len(self.examples) < self.shown:
            self.examples.append(self._example(place, sequences))

    def _count(self, one: Encoded) -> None:
        self.sequences += 1
        self.tokens += len(one.ids)
        has_prompt = self.fmt.name not in ("text", "messages")
        if has_prompt:
            self.lengths["prompt"].append(one.prompt_tokens)
        if has_prompt and self.fmt.name != "prompt":
            self.lengths["answer"].append(len(one.ids) - one.start)
        if self.fmt.name != "prompt":
            self.lengths["whole"].append(len(one.ids))

    def _look_at_ends(self, one: Encoded, place: str) -> None:
        ids = one.ids
        if self.bos is not None and ids[:2] == [self.bos, self.bos]:
            self.tally.add("double_bos", place)
        if self.fmt.name == "prompt":
            return
        if self.eos is None:
            self.tally.add("no_eos_token", place)
        # templates end a turn with the token and a line break
        elif self.eos not in ids[max(one.start, len(ids) - 3) :]:
            if self.treatment.append_eos or self.fmt.conversational:
                self.tally.add("missing_eos", place)
        elif ids[-2:] == [self.eos, self.eos] and len(ids) - one.start > 1:
            self.tally.add("double_eos", place)

    def _look_at_cut(self, one: Encoded, place: str) -> None:
        if self.fmt.name == "prompt":
            return
        longest = self.treatment.max_length
        too_long = longest is not None and len(one.ids) > longest
        if too_long:
            self.truncated += 1
            self.tally.add("truncated", place)
        if not any(one.trained):
            self.tally.add("all_masked", place)
        elif too_long and (
            self.treatment.overlong == "drop" or not any(one.trained[one.cut(self.treatment)])
        ):
            self.cut += 1
            self.tally.add("answer_cut", place)

    def _example(self, place: str, sequences: Sequence[Encoded]) -> Example:
        shown, left_out = {}, {}
        for one in sequences:
            kept = one.cut(self.treatment)
            ids, trained = one.ids[kept], one.trained[kept]
            shown[one.name] = tuple(self._parts(ids, trained))
            if len(ids) < len(one.ids):
                left_out[one.name] = len(one.ids) - len(ids)
        return Example(place, shown, left_out)

    def _parts(self, ids: Sequence[int], trained: Sequence[int]) -> Iterable[tuple[str, bool]]:
        start = 0
        for place in range(1, len(ids) + 1):
            if place == len(ids) or trained[place] != trained[start]:
                text = self.tokenizer.decode(ids[start:place], skip_special_tokens=False)
                yield text, bool(trained[start])
                start = place

    def totals(self) -> dict[str, int]:
        """Return of how many each finding is a count, where that is not rows."""
        per_sequence = (
            "answer_cut",
            "double_bos",
            "double_eos",
            "missing_eos",
            "no_eos_token",
            "prompt_no_prefix",
            "truncated",
            "all_masked",
        )
        return {**dict.fromkeys(per_sequence, self.sequences), "unknown_tokens": self.tokens}

    def report(self, rows: int, labels: dict[str, int]) -> SplitReport:
        """Return what was counted; forget unknown tokens where they are few."""
        if self.tally.counts.get("unknown_tokens", 0) <= MOST_UNKNOWN * self.tokens:
            self.tally.counts.pop("unknown_tokens", None)
        return SplitReport(
            rows=rows,
            lengths={part: _percentiles(values) for part, values in self.lengths.items() if values},
            truncated=self.truncated,
            cut=self.cut,
            sequences=self.sequences,
            labels=labels,
            examples=tuple(self.examples),
        )


def _percentiles(values: Sequence[int]) -> dict[str, int]:
    found = np.percentile(values, [50, 90, 99, 100], method="inverted_cdf")
    return dict(zip(("p50", "p90", "p99", "max"), map(int, found), strict=True))
