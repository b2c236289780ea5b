"""Plain text tables, numbers and times; made for thousands of rows. Left out: colours and borders."""

from collections.abc import Sequence
from datetime import datetime


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under headers in aligned columns."""
    lines = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def number(value: float) -> str:
    """Return a number with four significant digits."""
    return f"{value:.4g}"


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time span as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def elapsed(started: str | None, ended: str | None) -> float | None:
    """Return the seconds between two ISO times, up to now when the second is not known."""
    if started is None:
        return None
    begin = datetime.fromisoformat(started)
    end = datetime.fromisoformat(ended) if ended else datetime.now(begin.tzinfo)
    return (end - begin).total_seconds()


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Return a curve as one line of block characters, at most ``width`` wide; NaN is a space."""
    finite = [value for value in values if value == value]
    if not finite:
        return ""
    columns = min(width, len(values))
    low, high = min(finite), max(finite)
    line = []
    for column in range(columns):
        begin = column * len(values) // columns
        end = max(begin + 1, (column + 1) * len(values) // columns)
        part = [value for value in values[begin:end] if value == value]
        if not part:
            line.append(" ")
            continue
        share = (sum(part) / len(part) - low) / (high - low) if high > low else 0.0
        line.append("▁▂▃▄▅▆▇█"[min(7, int(share * 8))])
    return "".join(line)
