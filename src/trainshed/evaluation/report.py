"""Scores as a table for people and as JSON for programs.

A table has a row a metric and a column a system; every number has its interval, and a mark where a system
differs from the one it is compared with by more than chance. Left out: computing the scores.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from trainshed.errors import ConfigError, UnknownNameError, did_you_mean
from trainshed.evaluation.scores import LOWER_IS_BETTER, NEITHER_IS_BETTER, Scores
from trainshed.evaluation.significance import Interval, PairedDifference
from trainshed.files import write_json

#: one system's scores; several where its metrics were computed apart (retrieval and generation)
Column = Scores | Sequence[Scores]

BETTER, WORSE, ABSENT = "▲", "▼", "–"
STYLES = ("rich", "plain", "markdown")


@dataclass(frozen=True)
class ReportTable:
    """Cells of a table, ready to be drawn; made by `comparison_rows`.

    Parameters
    ----------
    title
        Stands above.
    header
        One text a column.
    rows
        Cells, as wide as the header. A row with a text in its first cell alone heads a section.
    notes
        Lines below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_rich(self) -> Table:
        """Return a table that a rich console prints."""
        table = Table(title=self.title or None, title_justify="left", caption_justify="left")
        table.caption = "\n".join(self.notes) or None
        for i, name in enumerate(self.header):
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
        for row in self.rows:
            heads = not any(row[1:])
            table.add_row(*row, style="bold" if heads else None)
        return table

    def to_text(self, *, width: int = 200) -> str:
        """Return the table drawn with lines, without colours."""
        out = io.StringIO()
        Console(file=out, width=width, no_color=True, highlight=False, markup=False).print(self.to_rich())
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

    def to_plain(self) -> str:
        """Return the table as aligned columns with no lines, for a terminal or a log."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self.title] if self.title else []
        for row in (self.header, *self.rows):
            cells = [
                c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self.notes]) + "\n"

    def to_markdown(self) -> str:
        """Return the table as GitHub Markdown."""
        lines = [f"**{self.title}**", ""] if self.title else []
        lines.append("| " + " | ".join(map(_escape, self.header)) + " |")
        lines.append("|" + "|".join(" :-- " if i == 0 else " --: " for i in range(len(self.header))) + "|")
        for row in self.rows:
            cells = [f"**{_escape(row[0])}**", *row[1:]] if not any(row[1:]) else list(map(_escape, row))
            lines.append("| " + " | ".join(cells) + " |")
        if self.notes:
            lines.extend(["", "  \n".join(self.notes)])
        return "\n".join(lines) + "\n"

    def draw(self, style: str = "rich") -> str:
        """Return the table in one of the `STYLES`."""
        drawn: Mapping[str, Callable[[], str]] = {
            "rich": self.to_text,
            "plain": self.to_plain,
            "markdown": self.to_markdown,
        }
        if style not in drawn:
            raise ConfigError(f"unknown table style {style!r}", fix=did_you_mean(style, STYLES))
        return drawn[style]()


def comparison_table(
    title: str,
    columns: Mapping[str, Column],
    metrics: Sequence[str],
    *,
    against: Mapping[str, str] | None = None,
    by_kind: bool | Sequence[str] = False,
    decimals: int = 3,
    style: str = "rich",
    unit: str = "questions",
) -> str:
    """Return a table of some systems' metrics, side by side, as text; see `comparison_rows`."""
    rows = comparison_rows(
        title, columns, metrics, against=against, by_kind=by_kind, decimals=decimals, unit=unit
    )
    return rows.draw(style)


def comparison_rows(
    title: str,
    columns: Mapping[str, Column],
    metrics: Sequence[str],
    *,
    against: Mapping[str, str] | None = None,
    by_kind: bool | Sequence[str] = False,
    decimals: int = 3,
    unit: str = "questions",
) -> ReportTable:
    """Lay some systems' metrics side by side.

    Parameters
    ----------
    title
        Stands above the table.
    columns
        Name of each system to its scores; to several, where retrieval and generation were scored apart. A
        system without a metric has a dash there.
    metrics
        The rows.
    against
        System to the one it is compared with, question by question: each pair adds the difference with its
        interval and p-value. By default every system is compared with the first; ``{}`` compares none.
    by_kind
        Add a section for each kind of question; or only for these metrics.
    decimals
        Digits after the point.
    unit
        What was scored, in the plural.

    Raises
    ------
    UnknownNameError
        No system has one of the metrics, or ``against`` names a system that is not there.
    DataError
        Two systems that are compared were scored on different questions.
    """
    systems = {name: _by_metric(column) for name, column in columns.items()}
    pairs = _pairs(systems, against)
    known = {metric for system in systems.values() for metric in system}
    for metric in metrics:
        if metric not in known:
            raise UnknownNameError(f"no system has the metric {metric!r}", fix=did_you_mean(metric, known))
    header = ["metric", *systems]
    for name, baseline in pairs.items():
        header += [f"{name} − {baseline}" if len(pairs) > 1 or len(systems) > 2 else "difference", "p"]
    rows = [_row(systems, pairs, metric, None, decimals) for metric in metrics]
    chosen = list(metrics) if by_kind is True else list(by_kind or [])
    kinds = sorted(
        {k for system in systems.values() for scores in system.values() for k in scores.kind_names}
    )
    for kind in kinds if chosen else []:
        size = max(s.kinds.count(kind) for system in systems.values() for s in system.values())
        rows.append((f"{kind} (n = {size})", *[""] * (len(header) - 1)))
        rows.extend(_row(systems, pairs, metric, kind, decimals) for metric in chosen)
    return ReportTable(title, tuple(header), tuple(rows), tuple(_notes(systems, pairs, unit)))


def scores_json(
    systems: Mapping[str, Scores], *, against: Mapping[str, str] | None = None, per_example: bool = False
) -> dict[str, Any]:
    """Return ``{system: scores}`` as JSON, and ``comparisons`` beside them.

    Parameters
    ----------
    systems
        Name of each system to its scores.
    against
        As in `comparison_rows`; ``comparisons`` then has ``"after - before": {metric: difference}``, and the
        same for each kind of question under ``by_kind``.
    per_example
        Add every question's values.
    """
    result: dict[str, Any] = {name: s.to_json(per_example=per_example) for name, s in systems.items()}
    pairs = _pairs({name: _by_metric(s) for name, s in systems.items()}, against)
    comparisons = {}
    for name, baseline in pairs.items():
        first, second = systems[name], systems[baseline]
        shared = [metric for metric in first.metrics if metric in second.metrics]
        comparisons[f"{name} - {baseline}"] = {
            **{m: first.difference(second, m).to_json() for m in shared},
            "by_kind": {
                kind: {m: first.difference(second, m, kind=kind).to_json() for m in shared}
                for kind in first.kind_names
            },
        }
    return {**result, "comparisons": comparisons} if comparisons else result


def write_report(path: Path, sections: Mapping[str, Any]) -> None:
    """Write a report as JSON, atomically.

    Parameters
    ----------
    path
        Such as ``report.json``.
    sections
        Name to `Scores`, to a mapping of systems to `Scores` (written as by `scores_json`), or to any JSON
        value.
    """
    result = {}
    for name, section in sections.items():
        if isinstance(section, Scores):
            result[name] = section.to_json(per_example=False)
        elif (
            isinstance(section, Mapping) and section and all(isinstance(s, Scores) for s in section.values())
        ):
            result[name] = scores_json(section)
        else:
            result[name] = section
    write_json(path, result)


def _by_metric(column: Column) -> dict[str, Scores]:
    parts = [column] if isinstance(column, Scores) else list(column)
    return {metric: part for part in parts for metric in part.metrics}


def _pairs(systems: Mapping[str, Any], against: Mapping[str, str] | None) -> dict[str, str]:
    if against is None:
        first = next(iter(systems), "")
        return {name: first for name in systems if name != first}
    for name in [*against, *against.values()]:
        if name not in systems:
            raise UnknownNameError(f"no system is called {name!r}", fix=did_you_mean(name, systems))
    return dict(against)


def _row(
    systems: Mapping[str, Mapping[str, Scores]],
    pairs: Mapping[str, str],
    metric: str,
    kind: str | None,
    decimals: int,
) -> tuple[str, ...]:
    cells, differences, marked = [], [], False
    for name, baseline in pairs.items():
        first, second = systems[name].get(metric), systems[baseline].get(metric)
        if first is None or second is None or not _has_kind(first, kind):
            differences += [ABSENT, ABSENT]
            continue
        difference = first.difference(second, metric, kind=kind)
        mark = _mark(difference, metric)
        marked = marked or bool(mark.strip())
        differences += [f"{_spread(difference, decimals, signed=True)} {mark}", _p_value(difference.p_value)]
    for system in systems.values():
        scores = system.get(metric)
        if scores is None or not _has_kind(scores, kind):
            cells.append(ABSENT)
        else:
            cells.append(_spread(scores.interval(metric, kind=kind), decimals))
    return (metric if kind is None else f"  {metric}", *cells, *differences)


def _has_kind(scores: Scores, kind: str | None) -> bool:
    return kind is None or kind in scores.kinds


def _spread(value: Interval | PairedDifference, decimals: int, *, signed: bool = False) -> str:
    if value.n == 0 or not np.isfinite(value.mean):
        return ABSENT
    form = f"{'+' if signed else ''}.{decimals}f"
    if not np.isfinite(value.low):
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _mark(difference: PairedDifference, metric: str) -> str:
    if not difference.excludes_zero or metric in NEITHER_IS_BETTER:
        return " "
    return BETTER if (difference.mean > 0) != (metric in LOWER_IS_BETTER) else WORSE


def _p_value(value: float) -> str:
    if not np.isfinite(value):
        return ABSENT
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _notes(systems: Mapping[str, Mapping[str, Scores]], pairs: Mapping[str, str], unit: str) -> list[str]:
    every = [scores for system in systems.values() for scores in system.values()]
    sizes = sorted({len(scores.ids) for scores in every})
    confidence = f"{every[0].resampling.confidence:.0%}" if every else ""
    notes = (
        [f"{' / '.join(map(str, sizes))} {unit}; in brackets the {confidence} bootstrap interval"]
        if every
        else []
    )
    if pairs:
        notes.append(
            f"{BETTER} better, {WORSE} worse: the interval of the paired difference excludes 0; "
            "p: paired randomisation test"
        )
    lower = sorted({metric for system in systems.values() for metric in system} & LOWER_IS_BETTER)
    return [*notes, f"lower is better: {', '.join(lower)}"] if lower else notes


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
