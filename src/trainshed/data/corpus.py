"""A corpus: passages, questions about them in splits, and a manifest; written and read as one directory.

Left out: making one (see `builtin` and `assembling`).
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainshed.data.examples import MANIFEST_FILE, PASSAGES_FILE, RagExample, load_examples
from trainshed.data.jsonl import jsonl_text
from trainshed.data.passages import Passage, read_passages
from trainshed.data.splits import SPLITS, split_of
from trainshed.errors import DataError
from trainshed.files import atomic_directory, digest_file, digest_text, read_json, write_json

FORMAT = 1


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
        What can be retrieved.
    splits
        Those of ``train``, ``validation`` and ``test`` that have questions.
    manifest
        How it was made, counts, and the hash of every file that `write_corpus` writes.
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
        """Return text to classify: the passages of a split without their first line, which names the class.

        Parameters
        ----------
        split
            ``train``, ``validation`` or ``test``.
        by
            ``kind``: module, class, function, method, property or topic. ``package``: the top-level package,
            such as ``email``.

        Raises
        ------
        DataError
            When the passages carry no labels: only those of the built-in corpus do.
        """
        _check_split(split, SPLITS)
        if any(not {by, "group"} <= set(passage.metadata) for passage in self.passages):
            raise DataError(
                f"the passages have no {by!r} to classify by",
                where="metadata of the passages",
                fix="use the built-in corpus, or a labelled dataset of your own",
            )
        return [
            LabelledText(passage.text.partition("\n")[2], str(passage.metadata[by]))
            for passage in self.passages
            if split_of(str(passage.metadata["group"])) == split
        ]

    def preferences(self, split: str) -> list[PreferencePair]:
        """Return each question of a split with its answer and, as worse, that of another one of its kind."""
        _check_split(split, self.splits)
        responses: dict[str, set[str]] = {}
        for example in self.splits[split]:
            responses.setdefault(example.kind, set()).add(example.response)
        ordered = {kind: sorted(values) for kind, values in responses.items()}
        pairs = []
        for example in self.splits[split]:
            choices = ordered[example.kind]
            start = random.Random(f"preference:{example.id}:{example.query}").randrange(len(choices))
            around = (*choices[start:], *choices[:start])
            rejected = next((response for response in around if response not in example.accepted), None)
            if rejected is not None:
                pairs.append(PreferencePair(example.query, example.response, rejected))
        return pairs


def _check_split(split: str, known: Iterable[str]) -> None:
    if split not in known:
        raise DataError(f"the corpus has no split {split!r}", fix=f"one of {', '.join(known)}")


def make_corpus(
    passages: Sequence[Passage], splits: Mapping[str, Sequence[RagExample]], facts: Mapping[str, Any]
) -> Corpus:
    """Return a corpus whose manifest holds ``facts``, counts and file hashes; empty splits are left out."""
    kept = {name: list(examples) for name, examples in splits.items() if examples}
    texts = _file_texts(passages, kept)
    manifest = {
        "format": FORMAT,
        **facts,
        "passages": _counts(str(passage.metadata.get("kind", "")) for passage in passages),
        "questions": {name: _counts(example.kind for example in examples) for name, examples in kept.items()},
        "files": {name: digest_text(text) for name, text in texts.items()},
    }
    return Corpus(list(passages), kept, manifest)


def _counts(kinds: Iterable[str]) -> dict[str, int]:
    counts = Counter(kinds)
    return {"total": counts.total(), **{kind: counts[kind] for kind in sorted(counts) if kind}}


def _file_texts(passages: Iterable[Passage], splits: Mapping[str, Iterable[RagExample]]) -> dict[str, str]:
    texts = {PASSAGES_FILE: jsonl_text(passage.to_json() for passage in passages)}
    for name, examples in splits.items():
        texts[f"{name}.jsonl"] = jsonl_text(example.to_json() for example in examples)
    return texts


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
    splits = {name: load_examples(directory / f"{name}.jsonl") for name in manifest["questions"]}
    return Corpus(passages, splits, manifest)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_FILE
    cause: Exception | None = None
    try:
        manifest = read_json(path)
        files, questions = manifest["files"], manifest["questions"]
        if set(files) == {PASSAGES_FILE, *(f"{name}.jsonl" for name in questions)}:
            return dict(manifest)
    except FileNotFoundError as error:
        raise DataError(
            "the directory holds no corpus", where=str(path), fix="a directory that write_corpus wrote"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        cause = error
    raise DataError(
        "the manifest of the corpus is damaged",
        where=str(path),
        fix="delete the directory and build the corpus again",
    ) from cause
