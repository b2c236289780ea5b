"""JSON Lines in and out: one object a line, with errors that name the file, the line and the field.

Plain and gzip-compressed files are read alike. Left out: any other format (see `rows`).
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainshed.errors import DataError
from trainshed.files import write_atomic


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of every line that is not blank.

    Parameters
    ----------
    path
        A ``.jsonl`` or ``.jsonl.gz`` file in UTF-8, with or without a byte-order mark.

    Raises
    ------
    DataError
        When the file is missing, is not UTF-8, is damaged, or a line is not a JSON object.
    """
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path), fix="give the path of an existing file")
    number = 0
    try:
        # lines are split as bytes: a wrong encoding is then found on its own line
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse(line.removeprefix(b"\xef\xbb\xbf"), path, number)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"the compressed file is damaged: {error}",
            where=f"{path}, after line {number}",
            fix="copy it anew",
        ) from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the line is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}",
            where=where,
            fix="convert the file, such as with: iconv -f latin1 -t utf-8",
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"the line is not valid JSON: {error.msg} at column {error.colno}",
            where=where,
            fix='one JSON object a line, such as {"query": "...", "response": "..."}',
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"the line holds {json_type(value)}, not an object",
            where=where,
            fix='one JSON object a line, such as {"query": "...", "response": "..."}',
        )
    return value


def jsonl_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return ``rows`` as JSON Lines, with their keys in the order given."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` as JSON Lines, atomically."""
    write_atomic(path, jsonl_text(rows))


def json_type(value: Any) -> str:
    """Return what a decoded JSON value is, in words for an error message."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
