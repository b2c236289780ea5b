"""`evaluate_rag_pipeline`: everything that it accepts, and what it refuses."""

import json
from types import SimpleNamespace

import pytest

from trainshed.data.passages import Passage
from trainshed.errors import ConfigError, DataError, StoreError
from trainshed.evaluation.pipeline import evaluate_rag_pipeline


class Index:
    """Finds the same for every query."""

    def __init__(self, found):
        self.found, self.asked = found, []

    def search(self, query, top_k):
        self.asked.append((query, top_k))
        return self.found[:top_k]


@pytest.fixture
def eval_file(tmp_path):
    def write(*rows):
        path = tmp_path / "eval.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_the_documented_call(eval_file):
    path = eval_file(
        {"query": "one", "relevant_docs": ["b"]}, {"query": "two", "relevant_docs": ["a", "zzz"]}
    )
    indexer = Index(["a", "b", "c"])
    metrics = evaluate_rag_pipeline(indexer, path, top_k_values=[1, 3, 5])
    assert list(metrics) == ["recall@1", "recall@3", "recall@5", "ndcg@1", "ndcg@3", "ndcg@5", "mrr"]
    assert metrics["recall@1"] == 0.25
    assert metrics["recall@3"] == 0.75
    assert metrics["mrr"] == 0.75
    assert metrics["ndcg@1"] == 0.5
    assert indexer.asked == [("one", 5), ("two", 5)]


@pytest.mark.parametrize(
    "found",
    [
        ["7", "8"],
        [7, 8],
        [("7", 0.9), ("8", 0.5)],
        [{"id": "7", "score": 1.0}, {"id": "8"}],
        [{"index": 7}, {"index": 8}],
        [{"doc_id": 7}, {"doc_id": 8}],
        [Passage(id="7", text="x"), Passage(id="8", text="y")],
        [SimpleNamespace(passage=Passage(id="7", text="x"), score=1.0)],
    ],
)
def test_every_form_of_a_hit_and_of_an_id(eval_file, found):
    for wanted in (7, "7"):
        metrics = evaluate_rag_pipeline(
            Index(found), str(eval_file({"query": "q", "relevant_docs": [wanted]})), [1]
        )
        assert metrics == {"recall@1": 1.0, "ndcg@1": 1.0, "mrr": 1.0}


def test_a_retriever_and_its_store(system, eval_file):
    path = eval_file({"query": "square root of a number", "relevant_docs": ["math.sqrt"]})
    metrics = evaluate_rag_pipeline((system.retriever, system.knowledge_store), path)
    assert metrics["mrr"] == 1.0
    with pytest.raises(ConfigError, match="retriever"):
        evaluate_rag_pipeline(system.knowledge_store, path)
    system.knowledge_store.clear()
    with pytest.raises(StoreError, match="empty"):
        evaluate_rag_pipeline((system.retriever, system.knowledge_store), path)


def test_a_system_is_asked_in_one_batch_where_it_can_be(eval_file):
    path = eval_file({"query": "one", "relevant_docs": ["p"]}, {"query": "two", "relevant_docs": ["x"]})
    hit = SimpleNamespace(passage=Passage(id="p", text="t"), score=1.0)
    batch = SimpleNamespace(batch_retrieve=lambda queries, top_k: [[hit] for _ in queries])
    single = SimpleNamespace(retrieve=lambda query, top_k: [hit])
    assert evaluate_rag_pipeline(batch, path) == evaluate_rag_pipeline(single, path)
    assert evaluate_rag_pipeline(single, path)["recall@1"] == 0.5


def test_documents_stand_where_their_best_passage_stands(eval_file):
    found = [Passage(id=f"a#{i}", text="x", doc_id="a") for i in range(4)]
    found += [Passage(id="b#0", text="x", doc_id="b"), Passage(id="c", text="x")]
    path = eval_file({"query": "q", "relevant_docs": ["b"]}, {"query": "r", "relevant_docs": ["a", "c"]})
    indexer = Index(found)
    metrics = evaluate_rag_pipeline(indexer, path, [2, 5])
    assert metrics["recall@2"] == 0.75  # a, b, c: the second question finds c at rank 3
    assert metrics["recall@5"] == 1.0
    assert metrics["mrr"] == 0.75
    assert indexer.asked[-1] == ("r", 20)


def test_questions_without_relevant_documents_are_left_out_and_said(eval_file, capsys):
    path = eval_file({"query": "a", "relevant_docs": ["x"]}, {"query": "b", "relevant_docs": []})
    assert evaluate_rag_pipeline(Index(["x"]), path, [1])["recall@1"] == 1.0
    assert "1 of 2 questions" in capsys.readouterr().err
    with pytest.raises(DataError, match="no question"):
        evaluate_rag_pipeline(Index(["x"]), eval_file({"query": "b", "relevant_docs": []}), [1])


def test_ids_that_name_nothing_are_said(eval_file, capsys):
    path = eval_file({"query": "a", "relevant_docs": ["other"]})
    assert evaluate_rag_pipeline(Index(["x"]), path, [1])["mrr"] == 0.0
    assert "ids of the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "relevant_docs": []}, "'query' is missing; there are 'question'"),
        ({"query": " ", "relevant_docs": []}, "an empty string"),
        ({"query": "a"}, "'relevant_docs' is missing"),
        ({"query": "a", "relevant_docs": "doc"}, "relevant_docs"),
        ({"query": "a", "relevant_docs": [1.5]}, "1.5"),
        ({"query": "a", "relevant_docs": [True]}, "True"),
    ],
)
def test_a_malformed_line_is_named(eval_file, row, message):
    path = eval_file({"query": "good", "relevant_docs": ["x"]}, row)
    with pytest.raises(DataError, match=message) as caught:
        evaluate_rag_pipeline(Index(["x"]), path)
    assert f"{path}, line 2" in str(caught.value)


def test_what_cannot_be_searched_or_scored_is_refused(eval_file, tmp_path):
    path = eval_file({"query": "a", "relevant_docs": ["x"]})
    with pytest.raises(ConfigError, match="search"):
        evaluate_rag_pipeline(object(), path)
    with pytest.raises(ConfigError, match="a search returned"):
        evaluate_rag_pipeline(Index([{"text": "x"}]), path)
    with pytest.raises(ConfigError, match="top_k_values"):
        evaluate_rag_pipeline(Index([]), path, [])
    with pytest.raises(DataError, match="does not exist"):
        evaluate_rag_pipeline(Index([]), tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no question"):
        evaluate_rag_pipeline(Index([]), eval_file())
