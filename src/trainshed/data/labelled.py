"""Rows with labels: a text and its classes, words with one each, a question and where its answer stands.

Labels are names; whole numbers become their digits. A dataset that is one undivided table is split 70 / 10 /
20 by what its rows say, so that equal texts stay together. Left out: tokens and ids (see `trainers`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from trainshed.config.schema import DataSection
from trainshed.data.builtin import build_corpus
from trainshed.data.corpus import Corpus
from trainshed.data.jsonl import json_type
from trainshed.data.rows import has_split, known_splits, open_rows
from trainshed.data.splits import SPLITS, split_of, stable_fraction
from trainshed.errors import ConfigError, DataError, did_you_mean
from trainshed.progress import say

_SHOWN_LABELS = 20


@dataclass(frozen=True, slots=True)
class LabelledExample:
    """A text with its classes: one, or any number of them where several may hold."""

    text: str
    labels: tuple[str, ...]
    pair: str | None = None
    where: str = ""

    @property
    def group(self) -> str:
        """What decides its split in an undivided table."""
        return self.text if self.pair is None else f"{self.text}\n{self.pair}"


@dataclass(frozen=True, slots=True)
class WordsExample:
    """Words with a label for each."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    where: str = ""

    @property
    def group(self) -> str:
        """What decides its split in an undivided table."""
        return " ".join(self.words)


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A question, a context, and where in it the answer stands.

    Attributes
    ----------
    answers
        Every accepted answer; none when the context does not answer.
    start, end
        Characters of the answer to learn; both 0 when there is none.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    start: int = 0
    end: int = 0
    id: str = ""
    where: str = ""

    @property
    def group(self) -> str:
        """What decides its split in an undivided table: questions about one context stay together."""
        return self.context


AnyExample = LabelledExample | WordsExample | SpanExample
E = TypeVar("E", LabelledExample, WordsExample, SpanExample)
ReadRow = Callable[[Mapping[str, Any], str], E]


def read_splits(section: DataSection, read_row: ReadRow[E]) -> dict[str, list[E]]:
    """Read a dataset's rows by split: ``train``, and of ``validation`` and ``test`` those that it has.

    Parameters
    ----------
    section
        Names the dataset and its splits. ``max_train_samples`` and ``max_eval_samples`` keep the first rows
        of ``train`` and ``validation``.
    read_row
        Makes an example of a row, given the place to name when it is wrong.

    Raises
    ------
    ConfigError
        When no dataset is named.
    DataError
        When it is missing, a row is malformed, or one table is too small to split.
    """
    source, name = section.dataset_name, section.dataset_config
    if source is None:
        raise ConfigError(
            "no dataset is named", where="data.dataset_name", fix="a .jsonl file, a directory or a hub name"
        )
    known = known_splits(source, name=name)
    limits = {"train": section.max_train_samples, "validation": section.max_eval_samples}
    if len(known) < 2:
        rows = open_rows(source, split=known[0] if known else None, name=name)
        parts = _divided([read_row(row, where) for where, row in rows], source)
        return {split: examples[: limits.get(split)] for split, examples in parts.items()}
    theirs = {
        "train": section.train_split,
        "validation": section.validation_split,
        "test": section.test_split,
    }
    found: dict[str, list[E]] = {}
    for split in SPLITS:
        if split == "train" or has_split(source, theirs[split], name=name):
            rows = open_rows(source, split=theirs[split], name=name)
            found[split] = [read_row(row, where) for where, row in islice(rows, limits.get(split))]
    return found


def _divided(examples: Sequence[E], source: str) -> dict[str, list[E]]:
    parts: dict[str, list[E]] = {split: [] for split in SPLITS}
    for example in examples:
        parts[split_of(example.group)].append(example)
    for split, found in parts.items():
        if not found:
            raise DataError(
                f"{len(examples)} rows in one table are too few to split: none is left for {split}",
                where=source,
                fix="a directory with train.jsonl, validation.jsonl and test.jsonl, or a column `split`",
            )
    counts = ", ".join(f"{len(found)} {split}" for split, found in parts.items())
    say(f"the dataset is one table, split by its texts: {counts}")
    return parts


def builtin_labelled(corpus: Corpus | None = None) -> dict[str, list[LabelledExample]]:
    """Return the built-in corpus as text to classify, in an order that mixes the classes.

    The class is what kind of thing a passage describes: a module, class, function, method or property of
    the standard library, or a topic of the language reference. Splits share no class or function.

    Parameters
    ----------
    corpus
        The built-in corpus where it is at hand; it is built when None.
    """
    corpus = corpus or build_corpus()
    return {
        split: sorted(
            (
                LabelledExample(item.text, (item.label,), where=f"built-in {split}, {item.text[:40]!r}")
                for item in corpus.labelled(split)
                if item.text.strip()
            ),
            key=lambda example: stable_fraction(f"labelled:{example.text}"),
        )
        for split in SPLITS
    }


def text_reader(
    *, text: str, label: str, pair: str | None = None, several: bool = False
) -> ReadRow[LabelledExample]:
    """Return what makes a `LabelledExample` of a row.

    Parameters
    ----------
    text, label, pair
        Names of the columns.
    several
        Whether the label is a list.
    """

    def read(row: Mapping[str, Any], where: str) -> LabelledExample:
        value = _value(row, label, where)
        labels = _labels(value, label, where) if several else (_label(value, label, where),)
        second = None if pair is None else _text(_value(row, pair, where), pair, where)
        return LabelledExample(
            _text(_value(row, text, where), text, where), tuple(dict.fromkeys(labels)), second, where
        )

    return read


def words_reader(*, words: str, label: str) -> ReadRow[WordsExample]:
    """Return what makes a `WordsExample` of a row; the arguments are the names of its columns."""

    def read(row: Mapping[str, Any], where: str) -> WordsExample:
        given = _value(row, words, where)
        if not isinstance(given, list | tuple) or not given or not all(isinstance(w, str) for w in given):
            raise DataError(
                f"the words are {json_type(given)}" if given else "there is no word",
                where=f"{where}, column {words!r}",
                fix='a list of words, such as ["Ada", "wrote", "it"]',
            )
        labels = _labels(_value(row, label, where), label, where)
        if len(labels) != len(given):
            raise DataError(
                f"{len(given)} words have {len(labels)} labels",
                where=f"{where}, columns {words!r} and {label!r}",
                fix="one label for each word",
            )
        return WordsExample(tuple(given), labels, where)

    return read


def span_reader(columns: Mapping[str, str]) -> ReadRow[SpanExample]:
    """Return what makes a `SpanExample` of a row.

    Parameters
    ----------
    columns
        Our names to the source's: ``question``, ``context``, ``answer`` (a text, a list of accepted ones, or
        SQuAD's mapping of ``text`` and ``answer_start``), ``answer_start``, ``id``.
    """

    def read(row: Mapping[str, Any], where: str) -> SpanExample:
        names = {name: columns.get(name, name) for name in ("question", "context", "answer_start", "id")}
        names["answer"] = columns.get("answer", "answer" if "answer" in row else "answers")
        question, context = (
            _text(_value(row, names[name], where), names[name], where) for name in ("question", "context")
        )
        value, starts = _value(row, names["answer"], where), row.get(names["answer_start"])
        if isinstance(value, Mapping):
            value, starts = value.get("text", []), value.get("answer_start", starts)
        place = f"{where}, column {names['answer']!r}"
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(a, str) and a.strip() for a in given):
            raise DataError("the answer is no text", where=place, fix="a text or a list of texts")
        identity = str(row.get(names["id"], ""))
        if not given:
            return SpanExample(question, context, (), id=identity, where=where)
        listed = list(starts) if isinstance(starts, list | tuple) else [starts]
        start, answer = locate_answer(context, given, listed, where=place)
        return SpanExample(question, context, tuple(given), start, start + len(answer), identity, where)

    return read


def locate_answer(
    context: str, answers: Sequence[str], starts: Sequence[int | None] = (), *, where: str = ""
) -> tuple[int, str]:
    """Return where the first accepted answer that a context holds begins, and that answer.

    Parameters
    ----------
    context
        The text.
    answers
        Accepted answers.
    starts
        Where each of them begins; where it is missing or None the answer is searched for.
    where
        To name in the error.

    Raises
    ------
    DataError
        When an answer does not stand where it is said to, or none stands anywhere.
    """
    for number, answer in enumerate(answers):
        start = starts[number] if number < len(starts) else None
        if start is not None:
            if context[start : start + len(answer)] == answer:
                return start, answer
            raise DataError(
                f"at character {start} of the context stands {context[start : start + len(answer)]!r}, "
                f"not {answer!r}",
                where=where,
                fix="count characters from 0, or leave answer_start out",
            )
        found = context.find(answer)
        found = context.casefold().find(answer.casefold()) if found < 0 else found
        if found >= 0 and context[found : found + len(answer)].casefold() == answer.casefold():
            return found, context[found : found + len(answer)]
    raise DataError(
        f"the context does not hold the answer {answers[0]!r}",
        where=where,
        fix="an answer that is a part of the context, or an empty list where it has none",
    )


def label_names(examples: Iterable[LabelledExample | WordsExample]) -> tuple[str, ...]:
    """Return the labels of examples, sorted: by value when all are whole numbers, by name otherwise."""
    found = {label for example in examples for label in example.labels}
    if all(label.lstrip("-").isdecimal() for label in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def label_counts(examples: Iterable[LabelledExample | WordsExample]) -> Counter[str]:
    """Return how often each label comes up."""
    return Counter(label for example in examples for label in example.labels)


def check_labels(examples: Iterable[LabelledExample | WordsExample], names: Sequence[str]) -> None:
    """Raise `DataError` at the first label that is not a known one; it names row and label."""
    known = set(names)
    for example in examples:
        for label in example.labels:
            if label not in known:
                shown = ", ".join(names[:_SHOWN_LABELS]) + (" …" if len(names) > _SHOWN_LABELS else "")
                fix = did_you_mean(label, names) if len(names) <= _SHOWN_LABELS else f"known: {shown}"
                raise DataError(
                    f"the label {label!r} does not come up in the training data", where=example.where, fix=fix
                )


def _value(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column in row:
        return row[column]
    raise DataError(
        f"there is no column {column!r}",
        where=where,
        fix=f"{did_you_mean(column, map(str, row))}. Say which one it is with training.text_column, "
        "training.label_column or data.columns",
    )


def _text(value: Any, column: str, where: str) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if isinstance(value, str) and value.strip():
        return value
    found = "an empty string" if isinstance(value, str) else json_type(value)
    raise DataError(
        f"the value is {found}",
        where=f"{where}, column {column!r}",
        fix="text that is not empty; remove the row",
    )


def _label(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return str(value)
    found = "an empty string" if isinstance(value, str) else json_type(value)
    raise DataError(
        f"the label is {found}", where=f"{where}, column {column!r}", fix="text or a whole number"
    )


def _labels(value: Any, column: str, where: str) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(_label(item, f"{column}[{index}]", where) for index, item in enumerate(value))
    raise DataError(
        f"the labels are {json_type(value)}",
        where=f"{where}, column {column!r}",
        fix='a list of labels, such as ["sport", "news"]',
    )
