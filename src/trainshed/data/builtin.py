"""The built-in corpus: passages and questions made from the Python installation itself.

A dataset that is always at hand, with no network: the standard library's docstrings (`symbols`) and the
language reference's topics (`topics`), cut to passages, with questions (`questions`) in three splits, text to
pre-train on, labelled text and preference pairs. It is a function of the Python version and nothing else.

Splits go by group: a class with its methods, a topic's heading, or a lone function or module is in one split
as a whole. The split, the questions and their words depend on names only; ``seed`` decides which passages
stay when fewer are wanted. So no run's training question is another run's test question.
"""

import platform
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainshed.data.examples import RagExample, load_examples
from trainshed.data.jsonl import jsonl_text
from trainshed.data.passages import Passage, read_passages
from trainshed.data.questions import passage_frequencies, stable_fraction, symbol_questions, topic_questions
from trainshed.data.symbols import Symbol, read_symbols
from trainshed.data.topics import read_topic_passages
from trainshed.errors import DataError
from trainshed.files import atomic_directory, digest_file, digest_text, read_json, write_json

#: changes whenever the same Python version would give another corpus
BUILDER_VERSION = 1
SPLITS = ("train", "validation", "test")
PASSAGES_FILE = "passages.jsonl"
MANIFEST_FILE = "manifest.json"
_DOCSTRING_CHARACTERS = 700
#: upper bounds of a group's stable fraction
_SPLIT_BOUNDS = (("train", 0.7), ("validation", 0.8), ("test", 1.0))


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text to classify and its class."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt with a better and a worse completion."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Corpus:
    """Passages, questions by split, and what they were made of.

    Attributes
    ----------
    passages
        Sorted by id.
    splits
        ``train``, ``validation`` and ``test``; each in an order that mixes the kinds.
    manifest
        Python and builder versions, seed, counts and file hashes.
    """

    passages: list[Passage]
    splits: dict[str, list[RagExample]]
    manifest: dict[str, Any]

    def pretraining_texts(self) -> list[str]:
        """Return the texts to pre-train on: every passage, and no question.

        The passages of validation and test questions are among them: passages are the knowledge that a
        retriever may look up, held out are the questions.
        """
        return [passage.text for passage in self.passages]

    def labelled(self, split: str, by: Literal["kind", "package"] = "kind") -> list[LabelledText]:
        """Return text to classify: the passages of a split without their heading line.

        Parameters
        ----------
        split
            ``train``, ``validation`` or ``test``.
        by
            ``kind``: module, class, function, method, property or topic. ``package``: the top-level package,
            such as ``email``.
        """
        return [
            LabelledText(_body(passage.text), str(passage.metadata[by]))
            for passage in self.passages
            if split_of(str(passage.metadata["group"])) == _known_split(split)
        ]

    def preferences(self, split: str) -> list[PreferencePair]:
        """Return each question of a split with its answer and that of another question of its kind."""
        by_kind: dict[str, list[str]] = {}
        for example in self.splits[_known_split(split)]:
            by_kind.setdefault(example.kind, []).append(example.response)
        pairs = []
        for example in self.splits[split]:
            others = sorted(set(by_kind[example.kind]) - set(example.accepted))
            if others:
                rejected = random.Random(f"preference:{example.id}").choice(others)
                pairs.append(PreferencePair(example.query, example.response, rejected))
        return pairs


def split_of(group: str) -> str:
    """Return the split of a group of symbols: 70 % train, 10 % validation, 20 % test."""
    fraction = stable_fraction(f"split:{group}")
    return next(name for name, bound in _SPLIT_BOUNDS if fraction < bound)


def build_corpus(*, max_passages: int | None = None, seed: int = 0) -> Corpus:
    """Build the corpus from this Python installation; seconds of work, and no described module is imported.

    Parameters
    ----------
    max_passages
        How many passages to keep; all of them when None.
    seed
        Decides which ones are kept. A smaller number keeps a subset of what a larger one keeps.

    Raises
    ------
    DataError
        When the standard library's sources or the topics are missing, or ``max_passages`` is below 1.
    """
    if max_passages is not None and max_passages < 1:
        raise DataError(
            f"max_passages is {max_passages}",
            where="data.max_passages",
            fix="a positive number, or null for all",
        )
    symbols = [(_symbol_passage(symbol), symbol) for symbol in read_symbols()]
    topics = read_topic_passages()
    # over every passage, not only those that are kept: a passage's questions are always the same
    frequencies = passage_frequencies(p.text for p in (*(passage for passage, _ in symbols), *topics))
    pairs = [(passage, list(symbol_questions(symbol, passage, frequencies))) for passage, symbol in symbols]
    pairs.extend((passage, list(topic_questions(passage, frequencies))) for passage in topics)
    pairs.sort(key=lambda pair: stable_fraction(f"keep:{seed}:{pair[0].id}"))
    pairs = sorted(pairs[:max_passages], key=lambda pair: pair[0].id)
    passages = [passage for passage, _ in pairs]
    splits: dict[str, list[RagExample]] = {name: [] for name in SPLITS}
    for passage, examples in pairs:
        splits[split_of(str(passage.metadata["group"]))].extend(examples)
    for examples in splits.values():
        examples.sort(key=lambda example: stable_fraction(f"order:{example.id}"))
    return Corpus(passages, splits, _manifest(passages, splits, seed=seed, max_passages=max_passages))


def builtin_split(split: str) -> list[RagExample]:
    """Return the questions of one split of the whole corpus: ``train``, ``validation`` or ``test``."""
    _known_split(split)
    return build_corpus().splits[split]


def _symbol_passage(symbol: Symbol) -> Passage:
    body = cut_text(symbol.docstring, _DOCSTRING_CHARACTERS)
    return Passage(
        id=symbol.name,
        text=f"{symbol.name}{symbol.signature}\n{body}",
        title=symbol.name,
        doc_id=symbol.module,
        source=symbol.source or "builtins",
        metadata={"kind": symbol.kind, "package": symbol.module.partition(".")[0], "group": symbol.group},
    )


def cut_text(text: str, characters: int) -> str:
    """Return the start of ``text``, at most ``characters`` long, cut at the end of a line or a word."""
    text = text.strip()
    if len(text) <= characters:
        return text
    head = text[: characters + 1]
    cut = head.rfind("\n") if head.rfind("\n") > characters // 2 else head.rfind(" ")
    return head[: cut if cut > 0 else characters].rstrip()


def _body(text: str) -> str:
    return text.partition("\n")[2]


def _known_split(split: str) -> str:
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of the built-in corpus", fix=f"one of {', '.join(SPLITS)}")
    return split


def _file_texts(passages: Iterable[Passage], splits: Mapping[str, Iterable[RagExample]]) -> dict[str, str]:
    texts = {PASSAGES_FILE: jsonl_text(passage.to_json() for passage in passages)}
    for name, examples in splits.items():
        texts[f"{name}.jsonl"] = jsonl_text(example.to_json() for example in examples)
    return texts


def _manifest(
    passages: list[Passage], splits: dict[str, list[RagExample]], *, seed: int, max_passages: int | None
) -> dict[str, Any]:
    texts = _file_texts(passages, splits)
    return {
        "name": "builtin",
        "builder_version": BUILDER_VERSION,
        "python": platform.python_version(),
        "seed": seed,
        "max_passages": max_passages,
        "passages": _counts(str(passage.metadata["kind"]) for passage in passages),
        "questions": {
            name: _counts(example.kind for example in examples) for name, examples in splits.items()
        },
        "files": {name: digest_text(text) for name, text in texts.items()},
    }


def _counts(kinds: Iterable[str]) -> dict[str, int]:
    counts = Counter(kinds)
    return {"total": counts.total(), **dict(sorted(counts.items()))}


def write_corpus(corpus: Corpus, directory: Path) -> None:
    """Write ``passages.jsonl``, a file a split, and ``manifest.json`` into ``directory``, all or nothing.

    What the directory held before is replaced.
    """
    with atomic_directory(directory) as partial:
        for name, text in _file_texts(corpus.passages, corpus.splits).items():
            (partial / name).write_text(text, encoding="utf-8", newline="\n")
        write_json(partial / MANIFEST_FILE, corpus.manifest)


def read_corpus(directory: Path) -> Corpus:
    """Read what `write_corpus` wrote, and check every file against the manifest.

    Raises
    ------
    DataError
        When a file is missing or is not the one that was written.
    """
    manifest = _read_manifest(directory)
    for name, digest in manifest["files"].items():
        path = directory / name
        if not path.is_file() or digest_file(path) != digest:
            raise DataError(
                "the corpus is damaged: the file is "
                + ("not the one written" if path.is_file() else "missing"),
                where=str(path),
                fix="delete the directory and build the corpus again",
            )
    passages = read_passages(directory / PASSAGES_FILE)
    splits = {name: load_examples(directory / f"{name}.jsonl") for name in SPLITS}
    return Corpus(passages, splits, manifest)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_FILE
    expected = {PASSAGES_FILE, *(f"{name}.jsonl" for name in SPLITS)}
    cause: Exception | None = None
    try:
        manifest = read_json(path)
        complete = expected <= set(manifest["files"])
    except FileNotFoundError as error:
        raise DataError(
            "the directory holds no corpus", where=str(path), fix="a directory that write_corpus wrote"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        complete, cause = False, error
    if not complete:
        raise DataError(
            "the corpus's manifest is damaged",
            where=str(path),
            fix="delete the directory and build the corpus again",
        ) from cause
    return dict(manifest)
