"""TREC files: the same numbers after writing and reading, and errors that name the line."""

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.errors import DataError
from trainshed.evaluation.trec import read_qrels, read_run, write_qrels, write_run

ids = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=6)
floats = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    run=st.dictionaries(ids, st.dictionaries(ids, floats, min_size=1, max_size=4), min_size=1, max_size=4),
    qrels=st.dictionaries(ids, st.dictionaries(ids, st.integers(-3, 9), min_size=1), min_size=1, max_size=4),
)
def test_written_files_read_the_same_here_and_in_pytrec_eval(tmp_path_factory, run, qrels):
    directory = tmp_path_factory.mktemp("trec")
    write_run(directory / "run", run)
    write_qrels(directory / "qrels", qrels)
    assert read_run(directory / "run") == run
    assert read_qrels(directory / "qrels") == qrels
    with (directory / "run").open(encoding="utf-8") as file:
        assert pytrec_eval.parse_run(file) == run
    with (directory / "qrels").open(encoding="utf-8") as file:
        assert pytrec_eval.parse_qrel(file) == qrels


def test_the_lines_of_a_run(tmp_path):
    path = tmp_path / "deep" / "run.trec"
    write_run(path, {"q": {"low": 0.25, "a": 1.0, "b": 1.0}}, tag="mine")
    assert path.read_text() == "q Q0 b 1 1.0 mine\nq Q0 a 2 1.0 mine\nq Q0 low 3 0.25 mine\n"


def test_tabs_blank_lines_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(b"\xef\xbb\xbfq1\tQ0\td1\t1\t2.5\tx\r\n\n q1 Q0 d2 2 1e-3 x\n")
    assert read_run(path) == {"q1": {"d1": 2.5, "d2": 0.001}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 2.0 x\nq Q0 e 2 1.0\n", "5 columns instead of 6"),
        ("q Q0 d 1 2.0 x\nq Q0 e 2 high x\n", "'high' is not a number"),
        ("q Q0 d 1 2.0 x\nq Q0 e 2 nan x\n", "'nan' is not a number"),
        ("q Q0 d 1 2.0 x\nq Q0 d 2 1.0 x\n", "document 'd' twice"),
    ],
)
def test_a_malformed_run_names_the_line(tmp_path, text, message):
    path = tmp_path / "run.trec"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_run(path)
    assert f"{path}, line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 d 1\nq 0 e\n", "3 columns instead of 4"),
        ("q 0 d 1\nq 0 e 0.5\n", "'0.5' is not a whole number"),
        ("q 0 d 1\nq 0 d 0\n", "document 'd' twice"),
    ],
)
def test_malformed_judgements_name_the_line(tmp_path, text, message):
    path = tmp_path / "qrels"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_qrels(path)
    assert f"{path}, line 2" in str(caught.value)


def test_missing_empty_and_wrongly_encoded_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_run(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        read_qrels(tmp_path / "empty")
    (tmp_path / "latin").write_bytes("q 0 é 1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"UTF-8(.|\n)*line 1"):
        read_qrels(tmp_path / "latin")


@pytest.mark.parametrize("bad", ["two words", "", "tab\tin", "\u00a0"])
def test_ids_that_the_format_cannot_hold_are_refused_and_nothing_is_written(tmp_path, bad):
    for call in (
        lambda: write_run(tmp_path / "run", {"q": {bad: 1.0}}),
        lambda: write_run(tmp_path / "run", {bad: {"d": 1.0}}),
        lambda: write_qrels(tmp_path / "run", {"q": {bad: 1}}),
        lambda: write_qrels(tmp_path / "run", {"q": {"d": 0.5}}),
    ):
        with pytest.raises(DataError):
            call()
    assert not (tmp_path / "run").exists()
