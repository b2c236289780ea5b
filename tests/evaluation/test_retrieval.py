"""Retrieval of a system on examples, by passage and by document, and of a run by judgements."""

import numpy as np
import pytest

from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.errors import ConfigError, DataError, StoreError, UnknownNameError
from trainshed.evaluation.judging import judge
from trainshed.evaluation.ranking import score_rankings
from trainshed.evaluation.retrieval import evaluate_retrieval, evaluate_run
from trainshed.evaluation.significance import Resampling


def test_every_query_finds_its_passage_but_the_misled_one(system, examples):
    scored = evaluate_retrieval(system, examples, top_k_values=(1, 3), batch_size=2)
    assert scored.ids == tuple(f"e{i}" for i in range(7))
    assert scored.values["recall@1"].tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert scored.mean("recall@1") == pytest.approx(6 / 7)
    assert scored.kind_names == ["json", "math", "os"]
    assert scored.mean("recall@1", kind="json") == 1.0
    assert scored.mean("recall@1", kind="os") == pytest.approx(2 / 3)
    interval = scored.aggregates["mrr@3"]
    assert interval.n == 7
    assert interval.low <= interval.mean <= interval.high
    assert scored.counts["n_queries"] == 7
    assert system.retriever.batches[-1] == 2


def test_the_run_scores_the_same_when_it_is_judged_again(system, examples):
    scored = evaluate_retrieval(system, examples, top_k_values=(1, 3))
    qrels = {e.id: {e.passage_id: 1} for e in examples}
    again = score_rankings(judge(scored.to_run(), qrels), scored.metrics)
    for metric in scored.metrics:
        np.testing.assert_array_equal(again[metric], scored.values[metric])
    assert all(len(found) == 3 for found in scored.to_run().values())


def test_a_pair_of_retriever_and_store_does_too(system, examples):
    pair = (system.retriever, system.knowledge_store)
    first, second = evaluate_retrieval(system, examples), evaluate_retrieval(pair, examples)
    assert first.to_json() == second.to_json()


def test_a_metric_deeper_than_the_cutoffs_is_searched_that_deep(system, examples):
    evaluate_retrieval(system, examples, top_k_values=(1,), metrics=["ndcg@5"])
    assert system.knowledge_store.reached == 5
    evaluate_retrieval(system, examples, top_k_values=(100,), metrics=["map"])
    assert system.knowledge_store.reached == 6


def test_documents_stand_where_their_best_passage_stands(build_system):
    words = [f"alpha{'' if i else ' beta'}" for i in range(9)]
    passages = [Passage(id=f"a#{i}", text=text, doc_id="a") for i, text in enumerate(words)]
    passages += [Passage(id="b#0", text="gamma", doc_id="b"), Passage(id="alone", text="delta epsilon")]
    system = build_system(passages)
    examples = [
        RagExample(query="alpha alpha gamma", response="", passage_id="b#0"),
        RagExample(query="delta", response="", passage_id="alone"),
    ]
    scored = evaluate_retrieval(system, examples, top_k_values=(2,), level="document")
    assert system.knowledge_store.reached > 2  # all passages of document a stand above the one of b
    assert list(scored.rankings["q0"])[:2] == ["a", "b"]
    assert scored.values["mrr@2"].tolist() == [0.5, 1.0]
    assert evaluate_retrieval(system, examples, top_k_values=(2,)).values["recall@2"].tolist() == [0.0, 1.0]


def test_several_relevant_passages_with_grades(system, examples):
    wanted = [{"os.path.join": 2, "os.path.exists": 1}, {"json.dumps", "json.loads"}]
    scored = evaluate_retrieval(system, examples[:2], top_k_values=(1, 6), relevant=wanted)
    assert scored.values["recall@1"].tolist() == [0.5, 0.0]
    assert scored.values["recall@6"].tolist() == [1.0, 1.0]


def test_a_question_without_a_passage_is_left_out_and_counted(system, examples):
    rows = [*examples, RagExample(query="what?", response="that", id="open")]
    scored = evaluate_retrieval(system, rows)
    assert "open" not in scored.ids
    assert scored.counts["n_without_relevant"] == 1
    assert "open" in scored.rankings


def test_relevant_passages_that_the_store_lacks_are_counted_as_misses(system, examples):
    rows = [*examples, RagExample(query="number", response="", id="x", passage_id="gone")]
    scored = evaluate_retrieval(system, rows)
    assert scored.counts["n_relevant_not_in_store"] == 1
    assert scored.values["recall@10"][-1] == 0.0


def test_the_store_of_another_corpus_is_an_error(system):
    rows = [RagExample(query="number", response="", passage_id="gone")]
    with pytest.raises(DataError, match="'gone'"):
        evaluate_retrieval(system, rows)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": ["ndgc@5"]}, UnknownNameError, "ndcg"),
        ({"level": "chunk"}, ConfigError, "document"),
        ({"relevant": [{"a"}]}, DataError, "1 sets"),
        ({"top_k_values": []}, ConfigError, "top_k_values"),
    ],
)
def test_wrong_options_are_refused(system, examples, options, error, message):
    with pytest.raises(error, match=message):
        evaluate_retrieval(system, examples, **options)


def test_an_empty_store_is_an_error(system, examples):
    system.knowledge_store.clear()
    with pytest.raises(StoreError, match="empty"):
        evaluate_retrieval(system, examples)


def test_wrong_input_is_refused(system, examples):
    with pytest.raises(DataError, match="no example"):
        evaluate_retrieval(system, [])
    with pytest.raises(ConfigError, match="RAGSystem"):
        evaluate_retrieval("path", examples)
    with pytest.raises(DataError, match="no question has a relevant passage"):
        evaluate_retrieval(system, [RagExample(query="a", response="b")])
    with pytest.raises(DataError, match="'e0'"):
        evaluate_retrieval(system, [examples[0], examples[0]])


def test_a_run_is_scored_by_its_judgements():
    run = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"b": 1.0}, "extra": {"a": 1.0}}
    qrels = {"q1": {"b": 1}, "q2": {"b": 1}, "q3": {"a": 1}, "q4": {"a": 0}}
    scored = evaluate_run(
        run, qrels, metrics=["MRR@10"], kinds={"q1": "hard"}, resampling=Resampling(samples=10)
    )
    assert scored.values["mrr@10"].tolist() == [0.5, 1.0, 0.0]
    assert scored.kinds == ("hard", "", "")
    assert scored.counts == {
        "n_queries": 4,
        "n_without_relevant": 1,
        "n_without_results": 1,
        "n_not_judged": 1,
    }


def test_a_run_of_other_queries_is_an_error():
    with pytest.raises(DataError, match="'1'"):
        evaluate_run({"1": {"a": 1.0}}, {"q1": {"a": 1}}, metrics=["map"])
    with pytest.raises(DataError, match="grade above 0"):
        evaluate_run({"1": {"a": 1.0}}, {"1": {"a": 0}}, metrics=["map"])
