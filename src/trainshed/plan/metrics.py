"""``metrics.jsonl``: what a run measured, a line per step.

Each line is ``{"step": 10, "time": 1767225600.0, "train/loss": 1.25}``. A value that is no finite number is
written as null, which `read_metrics` gives back as NaN. Left out: trackers and plots.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainshed.files import disk_errors, write_atomic


def _number(value: Any) -> float | int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


class MetricsLog:
    """Appends what is measured to a JSON-lines file.

    Parameters
    ----------
    path
        The file; made at the first write. A last line that a kill tore is dropped now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drop_torn_line()

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            write_atomic(self.path, data[: data.rfind(b"\n") + 1])

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line; the names of ``values`` are ``group/name``, the values numbers or 0-d tensors."""
        row = {"step": int(step), "time": round(time.time(), 3)}
        row.update({name: _number(value) for name, value in values.items()})  # type: ignore[misc]
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def truncate_after(self, step: int) -> None:
        """Drop the lines of later steps: called before going on from the checkpoint of ``step``."""
        kept = [row for row in _rows(self.path) if row["step"] <= step]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        if self.path.exists():
            write_atomic(self.path, text)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # what stands after the last line break is empty, or a line that is being written or was torn
    return [json.loads(line) for line in lines[:-1] if line]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file in the order written; none when there is no such file."""
    return [
        {name: math.nan if value is None else value for name, value in row.items()} for row in _rows(path)
    ]


def series(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Return the (step, value) pairs of one metric."""
    return [(row["step"], row[name]) for row in rows if name in row]
