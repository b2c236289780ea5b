"""From the section ``data`` to checked training rows in the format that an algorithm takes.

Sources are opened (`rows`), renamed and checked (`formats`), mixed and divided (`mixtures`), converted
(`conversion`) and cut to size, in this order: rows are divided while a prompt's answers are still together.
Left out: tokens, and what a model sees of the rows (`inspection`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainshed.config.schema import DataSection, MixtureSource
from trainshed.data.builtin import build_corpus
from trainshed.data.class_order import one_class_batches
from trainshed.data.conversion import CONVERSIONS, Placed, choose_target, convert
from trainshed.data.corpus import Corpus, read_corpus
from trainshed.data.corpus_rows import corpus_rows, has_rows, liked_format
from trainshed.data.examples import is_corpus
from trainshed.data.formats import Row, RowFormat, prompt_key
from trainshed.data.mixtures import draw_mixture, split_rows
from trainshed.data.reading import read_checked
from trainshed.data.rows import has_split, open_rows
from trainshed.errors import ConfigError, DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on and to hold out.

    Attributes
    ----------
    format
        Of all of them.
    splits
        ``train`` and those of ``validation`` and ``test`` that were asked for and have rows.
    places
        For each row of a split, the file and line or row that it came from.
    notes
        What was read otherwise than it stands there, left over, or repeated; to be printed.
    """

    format: RowFormat
    splits: dict[str, list[Row]]
    places: dict[str, list[str]]
    notes: tuple[str, ...] = ()

    def rows(self, split: str) -> list[Row]:
        """Return the rows of a split; none where it has none."""
        return self.splits.get(split, [])

    def dataset(self, split: str) -> Any:
        """Return the rows of a split as a `datasets.Dataset`; a column that some rows lack is null there.

        `Dataset.from_list` alone leaves out, without a word, what the first row does not have.
        """
        import datasets

        rows = self.rows(split)
        columns = dict.fromkeys(column for row in rows for column in row)
        return datasets.Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns})


@dataclass
class _Source:
    """One dataset, read and checked."""

    name: str
    format: RowFormat
    splits: dict[str, list[Placed]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load_rows(
    section: DataSection,
    *,
    accepts: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 8,
    splits: Sequence[str] = (TRAIN, VALIDATION),
) -> TrainingRows:
    """Load what a configuration names.

    Parameters
    ----------
    section
        Names the datasets, their splits, columns and formats, how they are mixed and what is held out.
    accepts
        Formats that the algorithm takes, the best first (`config.formats.accepted_formats`); empty keeps the
        format that there is.
    seed
        Decides the division into splits, the mixture, and the order of unpaired answers. Whoever is to find
        the same rows held out passes the same one: ``execution.seed``.
    batch_size
        Rows that one device takes at once, see `class_order.interleave`.
    splits
        Which to return; the others, those to train on too, are read only where rows are divided.

    Returns
    -------
    TrainingRows
        The same for the same arguments and files, on every machine.

    Raises
    ------
    ConfigError
        When no dataset is named.
    DataError
        Names the file, the row and the column that is wrong.
    """
    entries = _entries(section)
    read = [_read_source(entry, section, accepts, splits) for entry in entries]
    sources = [source for source in read if source is not None]
    if not sources:
        raise _no_rows(entries, splits)
    notes = [note for source in sources for note in source.notes]
    divided = _divide(sources, section, seed)
    target = _common_target(sources, accepts)
    parts: dict[str, list[list[Placed]]] = {}
    formats: list[RowFormat] = []
    for source, held in zip(sources, divided, strict=True):
        for split in splits:
            if held.get(split):
                made, fmt = convert(held[split], source.format, target, seed=seed, batch_size=batch_size)
                parts.setdefault(split, []).append(made)
                formats.append(fmt)
                notes += _conversion_notes(source, split, held[split], made, fmt)
            elif split == TRAIN:
                raise DataError("there are no rows to train on", where=source.name, fix="a larger dataset")
    if not formats:
        raise _no_rows(entries, splits)
    _check_alike(formats, sources)
    loaded = {split: _joined(split, lists, section, entries, seed, notes) for split, lists in parts.items()}
    fmt = formats[0]
    if fmt.name == "unpaired" and len(sources) > 1:
        loaded = {
            split: convert(rows, fmt, fmt.name, seed=seed, batch_size=batch_size)[0]
            for split, rows in loaded.items()
        }
    if fmt.name == "unpaired":
        notes += _class_notes(loaded, batch_size)
    return TrainingRows(
        fmt,
        {split: [row for _, row in rows] for split, rows in loaded.items()},
        {split: [where for where, _ in rows] for split, rows in loaded.items()},
        tuple(dict.fromkeys(notes)),
    )


def _no_rows(entries: Sequence[MixtureSource], splits: Sequence[str]) -> DataError:
    return DataError(
        f"the dataset has no rows in the split {' or '.join(splits)}",
        where=", ".join(entry.dataset_name for entry in entries),
        fix="the name of a split that is there (a single file is `train`), or a share of its rows by "
        f"data.{splits[0]}_fraction",
    )


def _entries(section: DataSection) -> list[MixtureSource]:
    """Return the sources of a section, with its own keys where theirs are not set."""
    given = list(section.mixture)
    if not given:
        if section.dataset_name is None:
            raise ConfigError(
                "no dataset is named",
                where="data.dataset_name",
                fix="a .jsonl file, a directory, a hub name, or `builtin`",
            )
        given = [MixtureSource(dataset_name=section.dataset_name, dataset_config=section.dataset_config)]
    filled = []
    for entry in given:
        defaults = {
            "train_split": section.train_split,
            "validation_split": section.validation_split,
            "test_split": section.test_split,
            "columns": section.columns,
            "format": section.format,
        }
        unset = {key: value for key, value in defaults.items() if getattr(entry, key) is None}
        filled.append(entry.model_copy(update=unset))
    return filled


def _read_source(
    entry: MixtureSource, section: DataSection, accepts: Sequence[str], splits: Sequence[str]
) -> _Source | None:
    """Read the splits of one dataset that are not to be made of its training rows; None if it has none."""
    fractions = {VALIDATION: section.validation_fraction, TEST: section.test_fraction}
    needs_train = TRAIN in splits or any(fractions[name] for name in splits)
    wanted = [TRAIN] if needs_train else []
    wanted += [name for name in splits if name != TRAIN and fractions[name] is None]
    corpus_itself = is_corpus(Path(entry.dataset_name)) and not entry.columns
    if entry.dataset_name == "builtin" or corpus_itself:
        return _read_corpus(entry, section, accepts, wanted)
    names = {TRAIN: entry.train_split, VALIDATION: entry.validation_split, TEST: entry.test_split}
    source: _Source | None = None
    for split in wanted:
        theirs = names[split] or split
        if split != TRAIN and not has_split(entry.dataset_name, theirs, name=entry.dataset_config):
            continue
        opened = open_rows(entry.dataset_name, split=theirs, name=entry.dataset_config)
        rows, fmt, notes = read_checked(
            opened,
            where=opened.source,
            columns=entry.columns or {},
            accepts=accepts,
            wanted=entry.format,
            like=source.format if source else None,
        )
        source = source or _Source(entry.dataset_name, fmt)
        source.splits[split] = rows
        source.notes += notes
    return source


def _read_corpus(
    entry: MixtureSource, section: DataSection, accepts: Sequence[str], wanted: Sequence[str]
) -> _Source:
    corpus = _corpus(entry.dataset_name, section.max_passages)
    name = entry.format or liked_format(accepts)
    source = _Source(entry.dataset_name, RowFormat(name, conversational=name == "messages"))
    names = {TRAIN: entry.train_split, VALIDATION: entry.validation_split, TEST: entry.test_split}
    for split in wanted:
        theirs = names[split] or split
        if split == TRAIN or has_rows(corpus, name, theirs):
            source.splits[split] = corpus_rows(corpus, name, theirs)
    source.notes.append(f"{entry.dataset_name}: a corpus, taken as {source.format}")
    return source


def _corpus(name: str, max_passages: int | None) -> Corpus:
    if name == "builtin":
        return build_corpus(max_passages=max_passages)
    return read_corpus(Path(name))


def _divide(sources: Sequence[_Source], section: DataSection, seed: int) -> list[dict[str, list[Placed]]]:
    """Return the splits of every source, those by fraction taken off the training rows.

    All sources are divided at once, so that a prompt which two of them have is in one split.
    """
    validation, test = section.validation_fraction or 0.0, section.test_fraction or 0.0
    if (not validation and not test) or not all(TRAIN in source.splits for source in sources):
        return [source.splits for source in sources]
    rows = [(number, pair) for number, source in enumerate(sources) for pair in source.splits[TRAIN]]
    divided = split_rows(
        rows,
        [prompt_key(pair[1], sources[number].format) for number, pair in rows],
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
    )
    made = [dict(source.splits) for source in sources]
    for split, share in ((TRAIN, 1.0), (VALIDATION, validation), (TEST, test)):
        for number, splits in enumerate(made):
            if share:
                splits[split] = [pair for owner, pair in divided[split] if owner == number]
    return made


def _common_target(sources: Sequence[_Source], accepts: Sequence[str]) -> str:
    """Return the format that every source is or can be made into, the algorithm's best one."""
    if not accepts:
        names = {source.format.name for source in sources}
        if len(names) > 1:
            raise DataError(
                f"the sources of the mixture have different formats: {', '.join(sorted(names))}",
                where="data.mixture",
                fix="one format, as trainshed data convert --to makes it",
            )
        return next(iter(names))
    if len(sources) == 1:
        return choose_target(sources[0].format.name, accepts)
    for target in accepts:
        if all(s.format.name == target or (s.format.name, target) in CONVERSIONS for s in sources):
            return target
    told = "; ".join(f"{source.name}: {source.format}" for source in sources)
    raise DataError(
        f"no format that is taken can be made of every source: {told}",
        where="data.mixture",
        fix=f"sources that can be made into one of {', '.join(accepts)}",
    )


def _check_alike(formats: Sequence[RowFormat], sources: Sequence[_Source]) -> None:
    if len({fmt.conversational for fmt in formats}) > 1:
        told = "; ".join(f"{source.name}: {source.format}" for source in sources)
        raise DataError(
            f"the mixture has texts and conversations: {told}",
            where="data.mixture",
            fix="one kind; trainshed data convert --to messages makes conversations of texts",
        )


def _joined(
    split: str,
    parts: Sequence[list[Placed]],
    section: DataSection,
    entries: Sequence[MixtureSource],
    seed: int,
    notes: list[str],
) -> list[Placed]:
    """Return the rows of a split: of one source its first ones, of several the mixture."""
    limit = section.max_train_samples if split == TRAIN else section.max_eval_samples
    if split != TRAIN or len(parts) == 1:
        return list(islice(chain.from_iterable(parts), limit))
    mixed = draw_mixture(
        parts,
        [entry.weight for entry in entries],
        seed=seed,
        limit=limit,
        exhausted=section.mixture_exhausted,
    )
    places = [{id(pair) for pair in part} for part in parts]
    for entry, part, own in zip(entries, parts, places, strict=True):
        count = sum(id(pair) in own for pair in mixed)
        turns = f", each {count / len(part):.1f} times on average" if count > len(part) else ""
        notes.append(
            f"{entry.dataset_name}: {count} of the mixture's {len(mixed)} rows, of {len(part)}{turns}"
        )
    return mixed


def _conversion_notes(
    source: _Source, split: str, before: Sequence[Placed], after: Sequence[Placed], fmt: RowFormat
) -> list[str]:
    if source.format == fmt:
        return []
    return [
        f"{source.name}, {split}: {len(before)} rows of {source.format} made into {len(after)} rows of {fmt}"
    ]


def _class_notes(loaded: Mapping[str, Sequence[Placed]], batch_size: int) -> list[str]:
    notes = []
    for split, rows in loaded.items():
        if batches := one_class_batches([row for _, row in rows], batch_size):
            notes.append(
                f"{split}: {len(batches)} batches of {batch_size} rows have one class only: one of the "
                "classes is too rare for every batch"
            )
    return notes
