"""BEIR folders: the same data after writing and reading, and errors that name the file and line."""

import gzip
import json

import pytest

from trainshed.data.passages import Passage
from trainshed.errors import DataError
from trainshed.evaluation.beir import read_any_qrels, read_beir, read_beir_qrels, write_beir
from trainshed.evaluation.retrieval import evaluate_retrieval

PASSAGES = [
    Passage(
        id="a#0",
        text="one",
        title="A",
        doc_id="a",
        chunk_id=0,
        start=0,
        end=3,
        source="a.txt",
        metadata={"n": 1},
    ),
    Passage(id="b", text="two words", title=""),
]
QUERIES = {"q1": "which one", "q2": "which two words"}
QRELS = {"q2": {"b": 2, "a#0": 0}, "q1": {"a#0": 1}}


@pytest.fixture
def folder(tmp_path):
    write_beir(tmp_path / "set", passages=PASSAGES, queries=QUERIES, qrels=QRELS)
    return tmp_path / "set"


def test_written_folders_read_the_same(folder):
    data = read_beir(folder)
    assert (data.passages, data.queries, data.qrels) == (PASSAGES, QUERIES, QRELS)
    assert (folder / "qrels" / "test.tsv").read_text().startswith("query-id\tcorpus-id\tscore\n")
    row = json.loads((folder / "corpus.jsonl").read_text().splitlines()[1])
    assert row == {"_id": "b", "title": "", "text": "two words", "metadata": {}}


def test_another_split_leaves_the_first(folder):
    write_beir(folder, passages=PASSAGES, queries=QUERIES, qrels={"q1": {"b": 1}}, split="dev")
    assert read_beir_qrels(folder, split="dev") == {"q1": {"b": 1}}
    assert read_beir_qrels(folder) == QRELS


def test_a_published_folder_reads(tmp_path):
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write(
            '{"_id": "1", "title": null, "text": "", "metadata": {"source": {"url": "x"}, "start": "now"}}\n'
        )
    (tmp_path / "queries.jsonl").write_text('{"_id": "7", "text": "what?", "metadata": {}}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("7\t1\t1\n")
    data = read_beir(tmp_path)
    assert data.passages == [Passage(id="1", text="", metadata={"source": {"url": "x"}, "start": "now"})]
    assert data.qrels == {"7": {"1": 1}}


def test_a_folder_can_be_searched_and_scored(build_system, folder):
    data = read_beir(folder)
    scored = evaluate_retrieval(
        build_system(data.passages), data.examples(), relevant=data.relevant(), metrics=["ndcg@1"]
    )
    assert scored.ids == ("q2", "q1")
    assert scored.values["ndcg@1"].tolist() == [1.0, 1.0]


def test_judgements_are_recognised_in_either_form(tmp_path):
    (tmp_path / "trec").write_text("q 0 d 1\n")
    (tmp_path / "table").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    assert read_any_qrels(tmp_path / "trec") == read_any_qrels(tmp_path / "table") == {"q": {"d": 1}}
    with pytest.raises(DataError, match="does not exist"):
        read_any_qrels(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "x"}\n', r"twice(.|\n)*line 2"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"id": "b"}\n', r"'_id' is missing(.|\n)*line 2"),
        ("corpus.jsonl", '{"_id": "a"}\n', r"'text' is missing(.|\n)*line 1"),
        ("queries.jsonl", '{"_id": 1, "text": "x"}\n', r"'_id' is 1(.|\n)*line 1"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}\n', "'q2'"),
        ("queries.jsonl", "{\n", "line 1"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\ta#0\n", r"2 columns(.|\n)*line 2"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\ta#0\tyes\n", r"'yes'(.|\n)*line 2"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "no judgement"),
    ],
)
def test_malformed_folders_name_the_file_and_the_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_beir(folder)
    assert str(folder) in str(caught.value)


def test_missing_files_say_what_belongs_there(folder):
    with pytest.raises(DataError, match="splits that are there: test"):
        read_beir(folder, split="train")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"no queries\.jsonl"):
        read_beir(folder)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match="space"):
        write_beir(tmp_path, passages=[Passage(id="a b", text="x")], queries={}, qrels={})
    with pytest.raises(DataError, match="no text"):
        write_beir(tmp_path, passages=[], queries={}, qrels={"q": {"a": 1}})
