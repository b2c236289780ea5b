"""A corpus from one's own documents and questions.

Passages come from documents (`documents`, `chunking`), from a table with a row a passage, or from a column of
the questions' own rows, as in SQuAD. Questions come from any dataset that `examples` loads. Left out: making
questions from documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainshed.data.chunking import chunk_documents
from trainshed.data.corpus import Corpus, make_corpus
from trainshed.data.documents import read_documents
from trainshed.data.examples import PASSAGE_COLUMNS, RagExample, load_examples
from trainshed.data.jsonl import json_type
from trainshed.data.passages import Passage, read_passages
from trainshed.data.questions import contains_tokens
from trainshed.data.rows import SUFFIXES, known_splits, open_rows
from trainshed.data.splits import SPLITS, split_groups, stable_fraction
from trainshed.errors import DataError, did_you_mean
from trainshed.files import digest_text
from trainshed.progress import say, track

_UNDIVIDED = ""


@dataclass(frozen=True)
class Sources:
    """What a corpus is made of.

    Attributes
    ----------
    documents
        A directory or file of documents to cut, or a table of passages (``.jsonl``, ``.parquet`` …); None
        takes the passages from the column ``text`` of the questions' rows.
    dataset
        The questions; None makes a corpus without any.
    dataset_config
        Configuration of a hub dataset that has several.
    columns
        Our names to the source's. In a table of passages ``passage_id`` names the id of a passage.
    split_names
        What the source calls ``train``, ``validation`` and ``test``.
    chunk_tokens, chunk_overlap
        How documents are cut.
    """

    documents: Path | None = None
    dataset: Any = None
    dataset_config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    split_names: Mapping[str, str] = field(default_factory=lambda: {name: name for name in SPLITS})
    chunk_tokens: int = 200
    chunk_overlap: int = 32


def assemble_corpus(
    sources: Sources,
    *,
    tokenizer: Callable[[], Any],
    max_passages: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read passages and questions, check that they belong together, and return them as one corpus.

    A dataset that is one undivided table is split 70 / 10 / 20 so that the questions about one passage stay
    together. A question's ``passage_id`` may also name a document: it then stands for the first of its
    passages that holds an accepted answer.

    Parameters
    ----------
    sources
        What to read.
    tokenizer
        Returns the tokenizer that documents are cut with; called only when there is something to cut.
    max_passages
        How many passages to keep; questions about the others are left out.
    seed
        Decides which ones are kept.

    Raises
    ------
    DataError
        Names the file, the line or row and the column; or what of the two parts does not fit.
    """
    if sources.documents is None and sources.dataset is None:
        raise DataError("there is neither a dataset nor documents", where="data", fix="set one or both")
    made: dict[str, Passage] = {}
    splits = _questions(sources, made)
    if sources.documents is None:
        passages = list(made.values())
    else:
        passages = _read_passages(sources.documents, sources, tokenizer)
    splits = _linked(passages, splits)
    if _UNDIVIDED in splits:
        splits = _divided(splits[_UNDIVIDED])
    if max_passages is not None and max_passages < len(passages):
        passages, splits = _kept(passages, splits, max_passages, seed)
    facts = {
        "name": Path(sources.dataset).name if isinstance(sources.dataset, str | Path) else None,
        "documents": sources.documents.name if sources.documents else None,
        "chunk_tokens": sources.chunk_tokens,
        "chunk_overlap": sources.chunk_overlap,
        "seed": seed,
        "max_passages": max_passages,
    }
    return make_corpus(passages, splits, facts)


def _kept(
    passages: Sequence[Passage], splits: Mapping[str, list[RagExample]], count: int, seed: int
) -> tuple[list[Passage], dict[str, list[RagExample]]]:
    """Keep so many passages, and the questions that are about them or about none."""
    ids = [passage.id for passage in passages]
    kept = set(sorted(ids, key=lambda name: stable_fraction(f"keep:{seed}:{name}"))[:count])
    questions = {
        name: [example for example in examples if example.passage_id is None or example.passage_id in kept]
        for name, examples in splits.items()
    }
    return [passage for passage in passages if passage.id in kept], questions


def _is_table(path: Path) -> bool:
    return path.is_file() and path.name.endswith(SUFFIXES)


def _read_passages(path: Path, sources: Sources, tokenizer: Callable[[], Any]) -> list[Passage]:
    if _is_table(path):
        names = {"passage_id": "id"} | {name: name for name in PASSAGE_COLUMNS}
        columns = {names[ours]: theirs for ours, theirs in sources.columns.items() if ours in names}
        return read_passages(path, columns=columns)
    passages = chunk_documents(
        track(read_documents(path), "Cut documents"),
        tokenizer(),
        max_tokens=sources.chunk_tokens,
        overlap_tokens=sources.chunk_overlap,
    )
    return list(passages)


def _questions(sources: Sources, made: dict[str, Passage]) -> dict[str, list[RagExample]]:
    """Return the questions by split, or all under `_UNDIVIDED`; passages in their rows go into ``made``."""
    if sources.dataset is None:
        return {}
    known = known_splits(sources.dataset, name=sources.dataset_config)
    if len(known) < 2:
        return {_UNDIVIDED: _load(sources, known[0] if known else None, made)}
    splits: dict[str, list[RagExample]] = {}
    for ours, theirs in sources.split_names.items():
        if theirs in known:
            splits[ours] = _load(sources, theirs, made)
        elif ours == "validation":
            say(f"the dataset has no split {theirs!r}: there is nothing to watch while training")
        else:
            raise DataError(
                f"the dataset has no split {theirs!r}",
                where=f"data.{ours}_split, {sources.dataset}",
                fix=did_you_mean(theirs, known),
            )
    return _unique_ids(splits)


def _divided(examples: Sequence[RagExample]) -> dict[str, list[RagExample]]:
    groups: dict[str, list[RagExample]] = {}
    for example in examples:
        groups.setdefault(example.passage_id or example.query, []).append(example)
    chosen = split_groups({group: len(members) for group, members in groups.items()})
    splits: dict[str, list[RagExample]] = {name: [] for name in SPLITS}
    for example in examples:
        splits[chosen[example.passage_id or example.query]].append(example)
    if not splits["train"] or not splits["test"]:
        raise DataError(
            f"{len(examples)} questions about {len(groups)} passages are too few to split",
            where="data.dataset_name",
            fix="a directory with train.jsonl and test.jsonl, or a column `split`",
        )
    return splits


def _load(sources: Sources, split: str | None, made: dict[str, Passage]) -> list[RagExample]:
    examples = load_examples(
        sources.dataset, split=split, columns=sources.columns, name=sources.dataset_config
    )
    if sources.documents is not None:
        return examples
    if "text" not in sources.columns:
        raise DataError(
            "there is nothing to retrieve: neither documents nor a column with the text that answers",
            where="data.documents, data.columns",
            fix="set data.documents to a directory or a table of passages, "
            "or data.columns: {text: <column>} where each row holds its passage",
        )
    rows = open_rows(sources.dataset, split=split, name=sources.dataset_config)
    return [
        replace(example, passage_id=_add_passage(row, where, example, sources.columns, made))
        for example, (where, row) in zip(examples, rows, strict=True)
    ]


def _add_passage(
    row: Mapping[str, Any],
    where: str,
    example: RagExample,
    columns: Mapping[str, str],
    made: dict[str, Passage],
) -> str:
    """Make the passage that a row holds, unless an earlier row made it, and return its id."""
    text = row.get(columns["text"])
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = "\n".join(text)
    if not isinstance(text, str) or not text.strip():
        problem = f"the passage is {json_type(text)} or empty"
        if columns["text"] not in row:
            problem = f"there is no such column; columns there: {', '.join(row)}"
        raise DataError(problem, where=f"{where}, column {columns['text']!r}", fix="text that is not empty")
    identity = example.passage_id or digest_text(text, 16)
    title, source = (str(row.get(columns.get(name, name)) or "") for name in ("title", "source"))
    passage = Passage(identity, text, title=title, doc_id=identity, source=source)
    if made.setdefault(identity, passage).text != text:
        raise DataError(
            f"two passages have the id {identity!r}",
            where=f"{where}, column {columns.get('passage_id', 'passage_id')!r}",
            fix="one text an id, or leave the column out: texts are then told apart by themselves",
        )
    return identity


def _linked(
    passages: Sequence[Passage], splits: Mapping[str, list[RagExample]]
) -> dict[str, list[RagExample]]:
    """Make every ``passage_id`` that of a passage, or None where none of its document's holds the answer."""
    ids = {passage.id for passage in passages}
    by_document: dict[str, list[Passage]] = {}
    for passage in passages:
        by_document.setdefault(passage.doc_id, []).append(passage)
    unknown: list[str] = []
    asked = linked = 0

    def link(example: RagExample) -> RagExample:
        nonlocal asked, linked
        if example.passage_id is None:
            return example
        asked += 1
        target = example.passage_id if example.passage_id in ids else None
        if target is None:
            candidates = by_document.get(example.passage_id, [])
            target = next((p.id for p in candidates if _holds(p, example.accepted)), None)
            if not candidates:
                unknown.append(example.passage_id)
        linked += target is not None
        return replace(example, passage_id=target)

    result = {name: [link(example) for example in examples] for name, examples in splits.items()}
    if unknown:
        raise DataError(
            f"{len(unknown)} of {asked} questions name a passage that is not there, such as {unknown[0]!r}",
            where="data.documents, data.columns.passage_id",
            fix=f"ids of passages or documents, such as {passages[0].id!r}",
        )
    if linked < asked:
        say(f"{asked - linked} of {asked} questions have no passage that holds their answer whole")
    return result


def _holds(passage: Passage, answers: Sequence[str]) -> bool:
    """Return whether the words of an answer stand in the passage; ``hive 4`` is not in ``hive 49``."""
    text = " ".join(passage.text.lower().split())
    return any(
        " ".join(answer.lower().split()) in text and contains_tokens(text, answer) for answer in answers
    )


def _unique_ids(splits: dict[str, list[RagExample]]) -> dict[str, list[RagExample]]:
    """Put the split before ids that two splits share, as row numbers do."""
    ids = [example.id for examples in splits.values() for example in examples]
    if len(set(ids)) == len(ids):
        return splits
    return {
        name: [replace(example, id=f"{name}:{example.id}") for example in examples]
        for name, examples in splits.items()
    }
