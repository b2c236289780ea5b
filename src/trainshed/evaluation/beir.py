"""BEIR folders, in and out: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

The layout of the BEIR benchmark (Thakur et al. 2021), in which most retrieval data sets are published. Left
out: downloading them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.data.examples import RagExample
from trainshed.data.jsonl import read_jsonl, write_jsonl
from trainshed.data.passages import Passage
from trainshed.errors import DataError
from trainshed.evaluation.judging import Qrels
from trainshed.evaluation.trec import add_judgement, check_ids, read_qrels, split_lines, whole_grade
from trainshed.files import write_atomic

_HEADER = ("query-id", "corpus-id", "score")
# fields of a passage that the format has no place for but its metadata
_OWN: Mapping[str, type] = {"doc_id": str, "chunk_id": int, "start": int, "end": int, "source": str}
_LAYOUT = "query-id<tab>corpus-id<tab>score"


@dataclass(frozen=True)
class BeirDataset:
    """A retrieval data set: passages, queries by id, and the grades of one split by query and passage."""

    passages: list[Passage]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    def examples(self) -> list[RagExample]:
        """Return the judged queries as examples without an answer, in the order of the judgements."""
        return [RagExample(query=self.queries[name], response="", id=name) for name in self.qrels]

    def relevant(self) -> list[dict[str, int]]:
        """Return the grades of each of `examples`, as `evaluate_retrieval` takes them."""
        return list(self.qrels.values())


def read_beir(directory: Path, *, split: str = "test") -> BeirDataset:
    """Read a BEIR folder.

    Parameters
    ----------
    directory
        Holds ``corpus.jsonl``, ``queries.jsonl`` (each may be compressed, ``.gz``) and ``qrels/<split>.tsv``.
    split
        Which judgements to read.

    Raises
    ------
    DataError
        A file is missing or a line is malformed (with its number), or a judged query is not there.
    """
    passages = [_passage(row, where) for row, where in _rows(_file(directory, "corpus.jsonl"))]
    queries = {
        _text(row, "_id", where): _text(row, "text", where)
        for row, where in _rows(_file(directory, "queries.jsonl"))
    }
    qrels = read_beir_qrels(directory, split=split)
    lacking = [name for name in qrels if name not in queries]
    if lacking:
        raise DataError(
            f"{len(lacking)} judged queries are not in queries.jsonl, such as {lacking[0]!r}",
            where=str(directory),
        )
    return BeirDataset(passages, queries, qrels)


def read_beir_qrels(directory: Path, *, split: str = "test") -> dict[str, dict[str, int]]:
    """Read only the judgements of a BEIR folder: query id to passage id to grade.

    Raises
    ------
    DataError
        The folder has no such split, or a line is malformed; with its number.
    """
    path = directory / "qrels" / f"{split}.tsv"
    if not path.is_file():
        there = sorted(p.stem for p in (directory / "qrels").glob("*.tsv"))
        fix = f"splits that are there: {', '.join(there)}" if there else "a BEIR folder has qrels/<split>.tsv"
        raise DataError(f"the BEIR folder has no judgements of split {split!r}", where=str(path), fix=fix)
    return read_qrels_table(path)


def read_qrels_table(path: Path) -> dict[str, dict[str, int]]:
    """Read a table ``query-id, corpus-id, score`` separated by tabs, with or without that header line."""
    qrels: dict[str, dict[str, int]] = {}
    for where, columns in split_lines(path, 3, _LAYOUT, tabs=True):
        if tuple(columns) != _HEADER:
            add_judgement(qrels, columns, where)
    if not qrels:
        raise DataError("the file holds no judgement", where=str(path), fix=f"lines such as: {_LAYOUT}")
    return qrels


def read_any_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements in either form: a table of three columns separated by tabs, else TREC's four columns.

    Raises
    ------
    DataError
        The file is missing or empty, or a line is malformed; with its number.
    """
    if path.is_file():
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
        if first.rstrip().count(b"\t") == 2:
            return read_qrels_table(path)
    return read_qrels(path)


def write_beir(
    directory: Path,
    *,
    passages: Iterable[Passage],
    queries: Mapping[str, str],
    qrels: Qrels,
    split: str = "test",
) -> None:
    """Write a BEIR folder; the judgements of other splits that lie there stay.

    Parameters
    ----------
    directory
        Made if it is not there.
    passages
        What is retrieved; document, span and source go into ``metadata``.
    queries
        Query id to text.
    qrels
        Query id to passage id to grade.
    split
        Name of these judgements.

    Raises
    ------
    DataError
        An id has a space in it, a grade is not a whole number, or a judged query has no text.
    """
    lines = ["\t".join(_HEADER) + "\n"]
    for query, grades in qrels.items():
        if query not in queries:
            raise DataError(f"the judged query {query!r} has no text", where=str(directory))
        check_ids([query, *grades], "id")
        lines.extend(f"{query}\t{doc}\t{whole_grade(grade, query)}\n" for doc, grade in grades.items())
    write_jsonl(directory / "corpus.jsonl", (_corpus_row(passage) for passage in passages))
    write_jsonl(directory / "queries.jsonl", ({"_id": name, "text": text} for name, text in queries.items()))
    write_atomic(directory / "qrels" / f"{split}.tsv", "".join(lines))


def _file(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file() and (directory / f"{name}.gz").is_file():
        return directory / f"{name}.gz"
    if not path.is_file():
        raise DataError(
            f"the BEIR folder has no {name}",
            where=str(directory),
            fix="corpus.jsonl, queries.jsonl, qrels/<split>.tsv",
        )
    return path


def _rows(path: Path) -> Iterable[tuple[dict[str, Any], str]]:
    seen: set[str] = set()
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        name = _text(row, "_id", where)
        if name in seen:
            raise DataError(f"the id {name!r} is there twice", where=where)
        seen.add(name)
        yield row, where


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(row.get(key), str):
        found = "is missing" if key not in row else f"is {row[key]!r}"
        raise DataError(f"the field {key!r} {found}", where=where, fix=f'"{key}": "..."')
    return str(row[key])


def _passage(row: Mapping[str, Any], where: str) -> Passage:
    metadata = dict(row.get("metadata") or {})
    own = {key: metadata.pop(key) for key, kind in _OWN.items() if isinstance(metadata.get(key), kind)}
    title = row.get("title") or ""
    return Passage(id=row["_id"], text=_text(row, "text", where), title=title, metadata=metadata, **own)


def _corpus_row(passage: Passage) -> dict[str, Any]:
    check_ids([passage.id], "id")
    own = {"doc_id": passage.doc_id, "source": passage.source}
    span = (
        {"chunk_id": passage.chunk_id, "start": passage.start, "end": passage.end} if passage.doc_id else {}
    )
    metadata = {**passage.metadata, **{k: v for k, v in own.items() if v}, **span}
    return {"_id": passage.id, "title": passage.title, "text": passage.text, "metadata": metadata}
