"""What an inspection found: as an object, as JSON, as a table for a log, and in colour on a terminal.

Tokens that the loss does not look at stand in ``⟦ ⟧``. Left out: finding anything (`inspection`).
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trainshed.data.findings import Finding
from trainshed.errors import DataError
from trainshed.files import write_json
from trainshed.progress import say

REPORT_FILE = "data_report.json"
MASKED = ("⟦", "⟧")


@dataclass(frozen=True)
class Example:
    """A row as the model sees it.

    Attributes
    ----------
    place
        Where it came from.
    sequences
        By column (``chosen``, ``rejected``, ``completion`` …) the decoded text in parts, each with whether
        the loss looks at it.
    left_out
        By column, tokens that were cut.
    """

    place: str
    sequences: dict[str, tuple[tuple[str, bool], ...]]
    left_out: dict[str, int] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield the example as text, what the loss does not look at in brackets."""
        yield f"  {self.place}"
        for name, parts in self.sequences.items():
            text = "".join(part if trained else part.join(MASKED) for part, trained in parts)
            cut = self.left_out.get(name, 0)
            yield f"    {name}: {text}" + (f" … {cut} tokens cut" if cut else "")


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes
    ----------
    rows
        How many.
    lengths
        For ``prompt``, ``answer`` and ``whole``: ``p50``, ``p90``, ``p99``, ``max``, in tokens.
    truncated, cut
        Sequences that are longer than what is kept; those of which the whole answer is lost.
    sequences
        How many there are: two a preference.
    labels
        Of unpaired answers: how many of each.
    examples
        The first few rows as the model sees them.
    """

    rows: int
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    truncated: int = 0
    cut: int = 0
    sequences: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class DataReport:
    """What a model will see, and what is wrong with it.

    Attributes
    ----------
    format
        Of the rows, in words.
    splits
        By name.
    findings
        Certain ones first.
    notes
        From loading.
    treatment
        What the trainer does with the rows; empty when no tokenizer was given.
    lost
        By split, the numbers from 0 of the rows of which an answer is lost for being beyond ``max_length``.
    """

    format: str
    splits: dict[str, SplitReport]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    treatment: Mapping[str, Any] = field(default_factory=dict)
    lost: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def certain(self, tolerate: Collection[str] = ()) -> list[Finding]:
        """Return what stops a run, without the findings named in ``tolerate``."""
        return [f for f in self.findings if f.level == "certain" and f.name not in tolerate]

    def check(self, tolerate: Collection[str] = ()) -> None:
        """Raise `DataError` for what is certainly wrong, naming the first rows."""
        wrong = self.certain(tolerate)
        if not wrong:
            return
        first, names = wrong[0], ", ".join(finding.name for finding in wrong)
        more = f"; and {len(wrong) - 1} more: {names}" if len(wrong) > 1 else ""
        raise DataError(
            f"the data is certainly wrong: {first.line}{more}",
            where="; ".join(first.places) or first.split,
            fix=f"{first.fix}; or data.tolerate: [{names}] to train on it all the same",
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "format": self.format,
            "treatment": dict(self.treatment),
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
        }

    def write(self, directory: Path) -> Path:
        """Write ``data_report.json`` into a directory and return its path."""
        path = directory / REPORT_FILE
        write_json(path, self.to_json())
        return path

    def to_text(self) -> str:
        """Return it as plain text, for a log."""
        lines = [f"data: {self.format}", *(f"  {note}" for note in self.notes), *self._table()]
        for name, split in self.splits.items():
            if split.examples:
                lines.append(f"what the model sees of {name} ({'…'.join(MASKED)}: no loss):")
                lines += [line for example in split.examples for line in example.lines()]
        if not self.findings:
            lines.append("nothing wrong was found")
        for finding in self.findings:
            mark = "WRONG" if finding.level == "certain" else "warning"
            lines.append(f"{mark}  {finding.line}")
            lines += [f"         at {place}" for place in finding.places]
            lines.append(f"         fix: {finding.fix}")
        return "\n".join(lines)

    def _table(self) -> list[str]:
        if not any(split.lengths for split in self.splits.values()):
            return [f"{name}: {split.rows:,} rows{_labels(split)}" for name, split in self.splits.items()]
        rows = [["", "rows", "tokens of", "p50", "p90", "p99", "max", "cut", "answer lost"]]
        for name, split in self.splits.items():
            head = [name, f"{split.rows:,}"]
            if not split.lengths:
                rows.append([*head, *[""] * 7])
            for number, (part, lengths) in enumerate(split.lengths.items()):
                last = part == list(split.lengths)[-1]
                lost = [_share(split.truncated, split.sequences), _share(split.cut, split.sequences)]
                rows.append(
                    [
                        *(head if number == 0 else ["", ""]),
                        part,
                        *(f"{lengths[key]:,}" for key in ("p50", "p90", "p99", "max")),
                        *(lost if last else ["", ""]),
                    ]
                )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        left = (0, 2)
        told = [
            f"{name}: {split.rows:,} rows{_labels(split)}"
            for name, split in self.splits.items()
            if split.labels
        ]
        return told + [
            "  ".join(
                cell.ljust(width) if column in left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]

    def to_rich(self) -> Text:
        """Return it with what the loss does not look at dimmed, and findings in colour."""
        text = Text()
        plain, open_, close = self.to_text(), *MASKED
        for line in plain.split("\n"):
            style = "bold red" if line.startswith("WRONG") else "yellow" if line.startswith("warning") else ""
            text.append(line + "\n", style=style)
        # over the whole text: what is masked may go over several lines
        start = plain.find(open_)
        while start >= 0:
            end = plain.find(close, start)
            end = len(plain) if end < 0 else end + 1
            text.stylize("dim", start, end)
            start = plain.find(open_, end)
        return text


def _labels(split: SplitReport) -> str:
    if not split.labels:
        return ""
    return f", {split.labels['true']:,} good answers and {split.labels['false']:,} bad ones"


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else ""


def show_report(report: DataReport) -> None:
    """Print a report on stderr: in colour on a terminal, as plain text elsewhere."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and sys.stderr.isatty():
        console.print(report.to_rich(), soft_wrap=True)
    else:
        say(report.to_text())
