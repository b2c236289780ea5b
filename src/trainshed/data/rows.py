"""Rows of any dataset, each with the place to name when it is wrong.

A source is a file (``.jsonl``, ``.jsonl.gz``, ``.json``, ``.parquet``), a directory (of
`datasets.save_to_disk`, or with a file a split), a hub name, a `datasets` object, or a sequence of dicts.
Left out: what the rows mean (see `examples`, `passages`).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.data.jsonl import json_type, read_jsonl
from trainshed.errors import DataError, did_you_mean, nearest

#: file endings that can be read, in the order in which a directory is searched for a split
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".json")
_ALIASES = {"validation": ("valid", "val", "dev"), "test": ("eval",)}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that can be gone through once.

    Attributes
    ----------
    source
        Path or name, for messages.
    rows
        (where, row) pairs; ``where`` names the file and the line, row or item.
    """

    source: str
    rows: Iterable[tuple[str, Mapping[str, Any]]]

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (where, row); raise `DataError` when there is none."""
        empty = True
        for pair in self.rows:
            empty = False
            yield pair
        if empty:
            raise DataError("the dataset is empty", where=self.source, fix="give a dataset that has rows")


def open_rows(source: Any, *, split: str | None = None, name: str | None = None) -> Rows:
    """Open any source of rows.

    Parameters
    ----------
    source
        What the module's docstring lists.
    split
        Which split; None where the source has only one. A single file is read whole for None, for ``train``
        and for the split it is named after; where its rows have a column ``split``, they are picked by that.
    name
        Configuration of a hub dataset that has several.

    Raises
    ------
    DataError
        When the source is missing, unreadable or has no such split.
    """
    if isinstance(source, str | os.PathLike):
        return _open_name(os.fspath(source), split, name)
    if _is_datasets_object(source):
        return _open_datasets_object(source, split, "the dataset given")
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return Rows("the list given", _sequence_rows(source))
    raise DataError(
        f"{type(source).__name__!r} objects are no datasets",
        fix="a path, a hub name, a datasets.Dataset, or a list of dicts",
    )


def known_splits(source: Any, *, name: str | None = None) -> list[str]:
    """Return the splits of a source, sorted; an empty list when it is one undivided table.

    Raises
    ------
    DataError
        When the source is missing or unreadable.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if path.is_file():
            return sorted({str(row["split"]) for _, row in _open_file(path, None) if "split" in row})
        if path.is_dir() and not _is_saved(path):
            return sorted(_split_files(path))
        if path.is_dir():
            source = _load_saved(path)
        elif _looks_like_path(os.fspath(source)):
            raise _missing(path)
        else:
            source = _load_hub(os.fspath(source), name)
    return sorted(source) if isinstance(source, Mapping) else []


def has_split(source: Any, split: str, *, name: str | None = None) -> bool:
    """Return whether a source has a split; an undivided file is ``train``, and what it is called.

    Raises
    ------
    DataError
        When the source is missing or unreadable.
    """
    known = known_splits(source, name=name)
    path = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    if path is None or not path.is_file():
        return any(candidate in known for candidate in (split, *_ALIASES.get(split, ())))
    return split in (known or ("train", path.name.partition(".")[0]))


def _sequence_rows(items: Sequence[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            raise DataError(
                f"the item is {json_type(item)}, not a dict",
                where=f"the list given, item {number}",
                fix='dicts such as {"query": "...", "response": "..."}',
            )
        yield f"the list given, item {number}", item


def _open_name(source: str, split: str | None, name: str | None) -> Rows:
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_directory(path, split)
    if path.is_file():
        return _open_file(path, split)
    if _looks_like_path(source):
        raise _missing(path)
    return _open_datasets_object(_load_hub(source, name), split, source)


def _looks_like_path(source: str) -> bool:
    # a hub name is "name" or "owner/name", and may not start with a dot
    return (
        source.startswith(("/", ".", "~"))
        or source.count("/") > 1
        or source.endswith((*SUFFIXES, ".csv", ".txt"))
    )


def _missing(path: Path) -> DataError:
    parent = path.parent
    near = nearest(path.name, [entry.name for entry in parent.iterdir()]) if parent.is_dir() else None
    hint = f"did you mean {parent / near}?" if near else "give the path of an existing file or directory"
    return DataError("the dataset does not exist", where=str(path), fix=hint)


def _open_file(path: Path, split: str | None) -> Rows:
    read = _reader(path)
    if read is None:
        raise DataError(
            f"cannot read a dataset from a {path.suffix or 'file without an ending'}",
            where=str(path),
            fix=f"a file that ends in {', '.join(SUFFIXES)}",
        )
    if split is None:
        return Rows(str(path), read(path))
    return Rows(f"{path}, split {split}", _pick_split(path, read(path), split))


def _pick_split(
    path: Path, rows: Iterable[tuple[str, Mapping[str, Any]]], split: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    whole = split == "train" or path.name.partition(".")[0] == split
    found: set[str] = set()
    for where, row in rows:
        if "split" not in row and not whole:
            raise DataError(
                f"a single file has no split {split!r}",
                where=str(path),
                fix=f"a directory with {split}{''.join(path.suffixes)} beside train{''.join(path.suffixes)}, "
                "or a column `split` in the file",
            )
        found.add(str(row.get("split", split)))
        if row.get("split", split) == split:
            yield where, row
    if found and split not in found:
        raise DataError(
            f"no row has the split {split!r}", where=f"{path}, column split", fix=did_you_mean(split, found)
        )


def _reader(path: Path) -> Any:
    readers = {
        ".jsonl": _jsonl_rows,
        ".jsonl.gz": _jsonl_rows,
        ".parquet": _parquet_rows,
        ".json": _json_rows,
    }
    return next((readers[suffix] for suffix in SUFFIXES if path.name.endswith(suffix)), None)


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in read_jsonl(path):
        yield f"{path}, line {number}", row


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}",
            where=str(path),
            fix="convert the file, such as with: iconv -f latin1 -t utf-8",
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"the file is not valid JSON: {error.msg}",
            where=f"{path}, line {error.lineno}, column {error.colno}",
            fix="a JSON list of objects; one object a line is .jsonl",
        ) from error
    if not isinstance(items, list):
        raise DataError(f"the file holds {json_type(items)}", where=str(path), fix="a JSON list of objects")
    for number, row in enumerate(items, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"the item is {json_type(row)}, not an object",
                where=f"{path}, item {number}",
                fix="a list of objects",
            )
        yield f"{path}, item {number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except pyarrow.ArrowException as error:
        raise DataError(
            f"the file is not readable Parquet: {str(error).splitlines()[0]}",
            where=str(path),
            fix="write it anew",
        ) from error


def _open_directory(path: Path, split: str | None) -> Rows:
    if _is_saved(path):
        return _open_datasets_object(_load_saved(path), split, str(path))
    files = _split_files(path)
    if not files:
        raise DataError(
            "the directory holds no dataset",
            where=str(path),
            fix=f"train{SUFFIXES[0]} or train.parquet in it, or what datasets.save_to_disk wrote",
        )
    chosen = _choose_split(files, split, str(path))
    rows = (pair for file in files[chosen] for pair in _reader(file)(file))
    return Rows(f"{path}, split {chosen}", rows)


def _split_files(path: Path) -> dict[str, list[Path]]:
    """Return the files of every split; shards such as ``train-00000-of-00002.parquet`` belong to one."""
    for directory in (path, path / "data"):
        files: dict[str, list[Path]] = {}
        for suffix in SUFFIXES:
            found: dict[str, list[Path]] = {}
            for file in sorted(directory.glob(f"*{suffix}")):
                stem = file.name.removesuffix(suffix)
                found.setdefault(stem.partition("-0")[0], []).append(file)
            for name, shards in found.items():
                files.setdefault(name, shards)
        if files:
            return files
    return {}


def _choose_split(known: Mapping[str, Any], split: str | None, where: str) -> str:
    if split is None:
        if len(known) == 1:
            return next(iter(known))
        split = "train"
    for candidate in (split, *_ALIASES.get(split, ())):
        if candidate in known:
            return candidate
    raise DataError(f"the dataset has no split {split!r}", where=where, fix=did_you_mean(split, known))


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _load_saved(path: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"cannot read what datasets.save_to_disk wrote: {error}", where=str(path), fix="save it anew"
        ) from error


def _is_datasets_object(source: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(source).__mro__)


def _open_datasets_object(source: Any, split: str | None, where: str) -> Rows:
    if isinstance(source, Mapping):  # DatasetDict and IterableDatasetDict are dicts
        chosen = _choose_split(source, split, where)
        where, source = f"{where}, split {chosen}", source[chosen]
    return Rows(where, ((f"{where}, row {number}", row) for number, row in enumerate(source, start=1)))


def _load_hub(source: str, name: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source, name=name)
    except (OSError, ValueError) as error:  # connection and not-found errors of the hub are OSErrors
        cause = str(error).splitlines()[0]
        raise DataError(
            f"{source!r} is neither a local path nor a hub dataset that can be reached: {cause}",
            where="data.dataset_name" + (f", data.dataset_config {name}" if name else ""),
            fix="an existing path, `builtin`, or a hub name with network access",
        ) from error
