"""Datasets in, datasets out: any source, in one format, divided into splits, as JSON Lines or for `datasets`.

Left out: what a configuration names for training (`loading`), and tokens (`inspection`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from trainshed.config.formats import describe_format
from trainshed.data.conversion import CONVERSIONS, Placed, convert
from trainshed.data.formats import Row, RowFormat, prompt_key
from trainshed.data.jsonl import jsonl_text
from trainshed.data.mixtures import split_rows
from trainshed.data.reading import read_checked
from trainshed.data.rows import Rows, known_splits, open_rows
from trainshed.data.splits import SPLITS
from trainshed.errors import ConfigError, DataError
from trainshed.files import atomic_directory, write_atomic

_VALIDATION = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class ConvertedData:
    """Rows by split in one format, and what is to be said about them."""

    format: RowFormat
    splits: dict[str, list[Row]]
    notes: tuple[str, ...] = field(default=())


def convert_dataset(
    source: str,
    *,
    target: str | None = None,
    columns: Mapping[str, str] | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 42,
    batch_size: int = 8,
) -> ConvertedData:
    """Read a dataset, check every row, convert it and divide it.

    Parameters
    ----------
    source
        As `rows.open_rows` takes it. The files of a directory are splits when all of them are called like
        one, and one table otherwise.
    target
        Format to make; that which the rows have when None.
    columns
        Names of columns, ours to theirs.
    fractions
        Shares of the rows to hold out as ``validation`` and ``test``; rows of one prompt stay together.
    seed
        Decides the division, and the order of unpaired answers.
    batch_size
        For unpaired answers: no batch of so many has one class only, see `class_order.interleave`.

    Raises
    ------
    DataError
        Names the row that is wrong, or the split that is there already.
    """
    held_out = {name: share for name, share in (fractions or {}).items() if share}
    read: dict[str, list[Placed]] = {}
    fmt: RowFormat | None = None
    notes: list[str] = []
    for split, rows in _open_splits(source, notes).items():
        checked, fmt, said = read_checked(
            rows,
            where=rows.source,
            columns=columns,
            accepts=(target,) if target else (),
            like=fmt,
            conversational=target == "messages",
        )
        read[split] = checked
        notes += said
    assert fmt is not None  # a source without rows is an error before
    divided = _divide(read, fmt, held_out, seed)
    made: dict[str, list[Row]] = {}
    final = fmt
    for split, placed in divided.items():
        converted, final = convert(placed, fmt, target or fmt.name, seed=seed, batch_size=batch_size)
        made[split] = [row for _, row in converted]
        if final != fmt:
            notes.append(f"{split}: {len(placed)} rows of {fmt} made into {len(converted)} rows of {final}")
    return ConvertedData(final, made, tuple(notes))


def _open_splits(source: str, notes: list[str]) -> dict[str, Rows]:
    names = known_splits(source)
    if not names:
        return {"train": open_rows(source)}
    ours = {name: _our_name(name, names) for name in names}
    if Path(source).is_dir() and any(name is None for name in ours.values()):
        notes.append(f"{source}: {', '.join(names)} are read as one table, as not all of them are splits")
        parts = [open_rows(source, split=name) for name in names]
        return {"train": Rows(source, chain.from_iterable(parts))}
    found: dict[str, Rows] = {}
    for name, own in ours.items():
        if own is None:
            notes.append(f"{source}: the split {name!r} is left out; known: {', '.join(SPLITS)}")
        elif own in found:
            raise DataError(
                f"two splits are called like {own}: {', '.join(names)}",
                where=source,
                fix="rename one of them",
            )
        else:
            found[own] = open_rows(source, split=name)
    if "train" not in found:
        # what is there is all there is to convert
        notes.append(f"{source}: there is no split to train on")
    return dict(sorted(found.items(), key=lambda item: SPLITS.index(item[0])))


def _our_name(name: str, names: Sequence[str]) -> str | None:
    if name in _VALIDATION:
        return "validation"
    if name == "eval":
        return "validation" if "test" in names else "test"
    return name if name in SPLITS else None


def _divide(
    read: dict[str, list[Placed]], fmt: RowFormat, held_out: Mapping[str, float], seed: int
) -> dict[str, list[Placed]]:
    if not held_out:
        return read
    for name in held_out:
        if name in read:
            raise DataError(
                f"the dataset has a split {name} already",
                where="the dataset",
                fix=f"leave out --{name}-fraction, or the split",
            )
    if "train" not in read:
        raise DataError("there is no split to divide", where="the dataset", fix="a split called train")
    rows = read["train"]
    divided = split_rows(
        rows,
        [prompt_key(row, fmt) for _, row in rows],
        validation_fraction=held_out.get("validation", 0.0),
        test_fraction=held_out.get("test", 0.0),
        seed=seed,
    )
    made = {**read, **{name: part for name, part in divided.items() if part}}
    return {name: made[name] for name in SPLITS if name in made}


def nemo_target(source: str) -> str:
    """Return the format to make of a dataset for NeMo-RL: preferences stay, answers become conversations."""
    if source == "preference" or (source, "messages") not in CONVERSIONS:
        return source
    return "messages"


def nemo_row(row: Row, fmt: RowFormat) -> Row:
    """Return a row as NeMo-RL reads it.

    A preference is ``context``, a conversation, and ``completions``, each with its ``rank`` (0 is the better
    one) and ``completion`` (NeMo-RL, ``PreferenceDataset``); a conversation is ``{"messages": [...]}``.

    Raises
    ------
    DataError
        When NeMo-RL has no such rows.
    """
    if fmt.name == "messages":
        return {"messages": row["messages"]}
    if fmt.name != "preference":
        raise DataError(
            f"NeMo-RL has no rows like {describe_format(fmt.name)}",
            where="--nemo",
            fix="preference (chosen and rejected), messages, or prompt and completion",
        )

    def turns(value: Any, role: str) -> Any:
        return value if fmt.conversational else [{"role": role, "content": value.strip()}]

    completions = [
        {"rank": rank, "completion": turns(row[column], "assistant")}
        for rank, column in enumerate(("chosen", "rejected"))
    ]
    return {"context": turns(row["prompt"], "user"), "completions": completions}


def write_dataset(
    splits: Mapping[str, Sequence[Row]], output: Path, *, as_datasets: bool = False
) -> list[Path]:
    """Write a dataset where there is nothing, all or nothing, and return what was written.

    Parameters
    ----------
    splits
        Rows by split.
    output
        A ``.jsonl`` file for one split, else a directory: a ``.jsonl`` file a split, or what
        `datasets.load_from_disk` loads.
    as_datasets
        Whether it is for `datasets`.

    Raises
    ------
    ConfigError
        When something is there already, or several splits are to be one file.
    """
    if output.exists():
        raise ConfigError(
            "the output is there already, and nothing is overwritten",
            where=str(output),
            fix="another place, or delete it first",
        )
    if output.name.endswith(".jsonl") and not as_datasets:
        if len(splits) > 1:
            raise ConfigError(
                f"the dataset has the splits {', '.join(splits)}, which one file cannot hold",
                where=str(output),
                fix="a directory, such as the same name without .jsonl",
            )
        write_atomic(output, jsonl_text(next(iter(splits.values()))))
        return [output]
    with atomic_directory(output) as partial:
        if as_datasets:
            _save_datasets(splits, partial)
            names = sorted(splits)
        else:
            names = [f"{name}.jsonl" for name in splits]
            for name, rows in splits.items():
                (partial / f"{name}.jsonl").write_text(jsonl_text(rows), encoding="utf-8", newline="\n")
    return [output / name for name in names]


def _save_datasets(splits: Mapping[str, Sequence[Row]], directory: Path) -> None:
    import datasets

    parts = {name: datasets.Dataset.from_list(list(rows)) for name, rows in splits.items()}
    datasets.DatasetDict(parts).save_to_disk(str(directory))
