"""TREC run and judgement files, in and out, as trec_eval and every other tool reads them.

A run line is ``query Q0 document rank score tag``; a judgement (qrels) line ``query 0 document grade``.
Columns are separated by spaces or tabs. The rank column is not read: as in trec_eval, the scores decide.
Left out: BEIR folders (see `beir`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from trainshed.errors import DataError
from trainshed.evaluation.judging import Qrels, Run, rank_documents
from trainshed.files import write_atomic

T = TypeVar("T")

_RUN_LINE = "query Q0 document rank score tag"
_QRELS_LINE = "query 0 document grade"


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read a TREC run: query id to document id to score.

    Raises
    ------
    DataError
        The file is missing or empty, or a line is malformed or names a document twice; with its number.
    """
    run: dict[str, dict[str, float]] = {}
    for where, columns in split_lines(path, 6, _RUN_LINE):
        query, _, document, _, score, _ = columns
        found = run.setdefault(query, {})
        if document in found:
            raise DataError(f"query {query!r} lists document {document!r} twice", where=where)
        found[document] = parse_number(score, "score", where)
    return _not_empty(run, path, _RUN_LINE)


def write_run(path: Path, run: Run, *, tag: str = "trainshed") -> None:
    """Write a TREC run, best document first, atomically; reading it gives the same scores again.

    Documents with equal scores stand in trec_eval's order: by id, descending.

    Raises
    ------
    DataError
        An id has a space in it or is empty, which the format can't hold.
    """
    lines = []
    check_ids([tag], "tag")
    for query, found in run.items():
        check_ids([query, *found], "id")
        for rank, document in enumerate(rank_documents(found, where=f"query {query!r}"), 1):
            lines.append(f"{query} Q0 {document} {rank} {float(found[document])!r} {tag}\n")
    write_atomic(path, "".join(lines))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read TREC judgements: query id to document id to grade.

    Raises
    ------
    DataError
        The file is missing or empty, or a line is malformed or judges a document twice; with its number.
    """
    qrels: dict[str, dict[str, int]] = {}
    for where, columns in split_lines(path, 4, _QRELS_LINE):
        add_judgement(qrels, [columns[0], *columns[2:]], where)
    return _not_empty(qrels, path, _QRELS_LINE)


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write TREC judgements, atomically.

    Raises
    ------
    DataError
        An id has a space in it or is empty, or a grade is not a whole number.
    """
    lines: list[str] = []
    for query, grades in qrels.items():
        check_ids([query, *grades], "id")
        lines.extend(f"{query} 0 {document} {whole_grade(g, query)}\n" for document, g in grades.items())
    write_atomic(path, "".join(lines))


def split_lines(
    path: Path, width: int, layout: str, *, tabs: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Yield (``"file, line n"``, columns) of every line that is not blank.

    Parameters
    ----------
    path
        A text file in UTF-8.
    width
        Number of columns a line must have.
    layout
        What a line should look like, for the error.
    tabs
        Columns are separated by tabs alone, so that they may hold spaces.

    Raises
    ------
    DataError
        The file is missing or not UTF-8, or a line has another number of columns.
    """
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path), fix="give the path of an existing file")
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                line = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError("the line is not UTF-8", where=where, fix="convert the file") from error
            if not line:
                continue
            columns = [c.strip() for c in line.split("\t")] if tabs else line.split()
            if len(columns) != width:
                raise DataError(f"{len(columns)} columns instead of {width}", where=where, fix=layout)
            yield where, columns


def add_judgement(qrels: dict[str, dict[str, int]], columns: list[str], where: str) -> None:
    """Add one judgement (query, document, grade); raise `DataError` when malformed or there already."""
    query, document, grade = columns
    grades = qrels.setdefault(query, {})
    if document in grades:
        raise DataError(f"query {query!r} judges document {document!r} twice", where=where)
    try:
        grades[document] = int(grade)
    except ValueError:
        raise DataError(f"the grade {grade!r} is not a whole number", where=where, fix="such as 1") from None


def parse_number(text: str, what: str, where: str) -> float:
    """Return the number that a column holds, or raise `DataError`."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise DataError(f"the {what} {text!r} is not a number", where=where, fix="such as 12.5")
    return value


def whole_grade(grade: float, query: str) -> int:
    """Return a grade as a whole number, or raise `DataError`."""
    if int(grade) != grade:
        raise DataError(f"the grade {grade!r} is not a whole number", where=f"query {query!r}")
    return int(grade)


def check_ids(ids: list[str], what: str) -> None:
    """Raise `DataError` when a name can't stand in a column."""
    for name in ids:
        if not name or name.split() != [name]:
            raise DataError(
                f"the {what} {name!r} is empty or has a space in it",
                fix="TREC and BEIR files separate columns by spaces and tabs: rename it",
            )


def _not_empty(table: dict[str, T], path: Path, layout: str) -> dict[str, T]:
    if not table:
        raise DataError("the file is empty", where=str(path), fix=f"lines such as: {layout}")
    return table
