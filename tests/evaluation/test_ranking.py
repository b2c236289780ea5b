"""Every ranking metric against trec_eval itself, and the cases where we differ on purpose."""

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.errors import ConfigError, DataError, UnknownNameError
from trainshed.evaluation.judging import from_ranks, from_results, judge, pool_documents, rank_documents
from trainshed.evaluation.ranking import default_metrics, headline_metrics, metric_name, score_rankings

CUTOFFS = (1, 2, 3, 5, 10)
ORACLE = {
    **{f"recall@{k}": f"recall_{k}" for k in CUTOFFS},
    **{f"precision@{k}": f"P_{k}" for k in CUTOFFS},
    **{f"hit@{k}": f"success_{k}" for k in CUTOFFS},
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in CUTOFFS},
    **{f"map@{k}": f"map_cut_{k}" for k in CUTOFFS},
    "map": "map",
    "mrr": "recip_rank",
    "ndcg": "ndcg",
    "recall": "set_recall",
}
MEASURES = {
    "map",
    "recip_rank",
    "ndcg",
    "set_recall",
    *(f"{m}.{','.join(map(str, CUTOFFS))}" for m in ("recall", "P", "success", "ndcg_cut", "map_cut")),
}

documents = st.sampled_from(["a", "B", "ab", "d1", "d10", "d2", "é", "z-9", "中", "D", "x", "y"])
# few distinct scores, and two that are equal only in single precision
scores = st.sampled_from([0.0, -1.5, 0.5, 0.5 + 1e-12, 1.0, 2.0, 3.25]) | st.floats(-5, 5, width=32)
runs = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3", "q4"]), st.dictionaries(documents, scores), max_size=4
)
judgements = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3", "q5"]),
    st.dictionaries(documents, st.integers(-2, 4), min_size=1),
    min_size=1,
)


def trec_eval(run, qrels, measures=MEASURES):
    # trec_eval itself crashes on a query whose judgements are all below 0
    usable = {query: grades for query, grades in qrels.items() if max(grades.values()) >= 0}
    if not usable:
        return {}
    return pytrec_eval.RelevanceEvaluator(usable, measures).evaluate({q: s for q, s in run.items() if s})


@settings(max_examples=400, deadline=None)
@given(run=runs, qrels=judgements)
def test_every_metric_equals_trec_eval(run, qrels):
    judged = judge(run, qrels)
    values = score_rankings(judged, ORACLE)
    expected = trec_eval(run, qrels)
    with_relevant = [query for query, grades in qrels.items() if max(grades.values()) > 0]
    assert list(judged.query_ids) == with_relevant
    assert set(judged.excluded) == set(qrels) - set(with_relevant)
    assert set(judged.missing) == {query for query in with_relevant if not run.get(query)}
    for row, query in enumerate(judged.query_ids):
        for ours, theirs in ORACLE.items():
            right = expected[query][theirs] if query in expected else 0.0  # it drops what the run lacks
            assert values[ours][row] == pytest.approx(right, abs=1e-6), (query, ours)


@settings(max_examples=100, deadline=None)
@given(run=runs, qrels=judgements)
def test_cut_mrr_and_exponential_ndcg_equal_trec_eval_on_changed_input(run, qrels):
    judged = judge(run, qrels)
    ours = score_rankings(judged, ["mrr@2", "ndcg_exp@3", "ndcg_exp"])
    cut = {query: {d: run[query][d] for d in rank_documents(run[query])[:2]} for query in run}
    first = trec_eval(cut, qrels, {"recip_rank"})
    gains = {q: {d: 2**g - 1 if g > 0 else g for d, g in grades.items()} for q, grades in qrels.items()}
    graded = trec_eval(run, gains, {"ndcg", "ndcg_cut.3"})
    for row, query in enumerate(judged.query_ids):
        assert ours["mrr@2"][row] == pytest.approx(first.get(query, {}).get("recip_rank", 0.0), abs=1e-6)
        assert ours["ndcg_exp@3"][row] == pytest.approx(
            graded.get(query, {}).get("ndcg_cut_3", 0.0), abs=1e-6
        )
        assert ours["ndcg_exp"][row] == pytest.approx(graded.get(query, {}).get("ndcg", 0.0), abs=1e-6)


def test_a_large_random_run_equals_trec_eval():
    rng = np.random.default_rng(0)
    run = {
        f"q{i}": {
            f"d{d}": float(s)
            for d, s in zip(rng.permutation(400)[:100], rng.integers(0, 40, 100), strict=True)
        }
        for i in range(50)
    }
    qrels = {
        f"q{i}": {f"d{d}": int(rng.integers(0, 4)) for d in rng.permutation(400)[:30]} for i in range(55)
    }
    judged = judge(run, qrels)
    values, expected = score_rankings(judged, ORACLE), trec_eval(run, qrels)
    assert len(judged.missing) == 5
    for name, theirs in ORACLE.items():
        right = [expected.get(query, {}).get(theirs, 0.0) for query in judged.query_ids]
        np.testing.assert_allclose(values[name], right, atol=1e-6)
    assert 0 < values["ndcg@10"].mean() < 1


def test_hand_computed_values():
    # grades 2, 1, 1 exist; the ranking finds the 1 at rank 2 and the 2 at rank 4
    judged = from_results([["x", "b", "y", "a"]], [{"a": 2, "b": 1, "c": 1}])
    values = {
        k: float(v[0]) for k, v in score_rankings(judged, ["ndcg", "ndcg_exp", "map", "mrr", "p@4"]).items()
    }
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert values["ndcg"] == pytest.approx((1 / math.log2(3) + 2 / math.log2(5)) / ideal)
    assert values["ndcg_exp"] == pytest.approx((1 / math.log2(3) + 3 / math.log2(5)) / (ideal + 1))
    assert values["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert values["mrr"] == 0.5
    assert values["precision@4"] == 0.5


def test_a_query_that_the_run_lacks_counts_as_zero_and_is_not_dropped():
    judged = judge({"q1": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 0}, "q4": {}})
    assert score_rankings(judged, ["recall@1"])["recall@1"].mean() == 0.5
    assert judged.missing == ("q2",)
    assert judged.excluded == ("q3", "q4")


def test_equal_scores_are_ordered_by_document_id_descending():
    assert rank_documents({"a": 1.0, "c": 1.0, "b": 1.0, "z": 0.5, "first": 2.0}) == [
        "first",
        "c",
        "b",
        "a",
        "z",
    ]
    assert rank_documents({"a": 1.0 + 1e-9, "b": 1.0}) == ["b", "a"]  # equal in single precision


def test_a_duplicate_counts_where_it_first_stands():
    judged = from_results([["a", "a", "b"]], [{"b"}])
    assert score_rankings(judged, ["mrr"])["mrr"][0] == 0.5


def test_a_score_that_is_no_number_is_refused_with_its_query():
    with pytest.raises(DataError, match=r"'b' is not a number(.|\n)*q1"):
        judge({"q1": {"a": 1.0, "b": float("nan")}}, {"q1": {"a": 1}})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 12), min_size=1, max_size=30))
def test_ranks_score_as_the_rankings_that_they_stand_for(ranks):
    rankings = [[f"o{i}" for i in range(r - 1)] + (["right"] if r > 0 else []) for r in ranks]
    names = default_metrics((1, 5, 10))
    short, long = from_ranks(ranks), from_results(rankings, [{"right"}] * len(ranks))
    left, right = score_rankings(short, names), score_rankings(long, names)
    for name in names:
        np.testing.assert_allclose(left[name], right[name])


def test_ranks_that_mean_not_found():
    judged = from_ranks([1.0, np.nan, np.inf, 0, 3], query_ids=list("abcde"))
    np.testing.assert_allclose(score_rankings(judged, ["mrr@10"])["mrr@10"], [1, 0, 0, 0, 1 / 3])
    assert judged.missing == ("b", "c", "d")


def test_no_query_gives_no_values():
    judged = judge({}, {"q": {"a": 0}})
    assert all(values.shape == (0,) for values in score_rankings(judged, default_metrics([1])).values())


def test_pooling_keeps_the_best_passage_of_a_document():
    pooled = pool_documents({"a#1": 0.9, "b#1": 0.8, "a#2": 0.95}, lambda passage: passage[0])
    assert pooled == {"a": 0.95, "b": 0.8}
    assert pool_documents({"p": 1.0}, {"p": "doc"}) == {"doc": 1.0}


def test_names_of_metrics():
    assert [metric_name(n) for n in ("P@5", "nDCG@10", "Success@1", "RR", "AP", "R@2")] == [
        "precision@5",
        "ndcg@10",
        "hit@1",
        "mrr",
        "map",
        "recall@2",
    ]
    assert headline_metrics([5, 1]) == ["mrr@5", "ndcg@5", "map@5", "recall@1", "recall@5"]
    assert set(headline_metrics([1, 5])) <= set(default_metrics([1, 5]))


@pytest.mark.parametrize("name", ["recal@5", "ndgc@5", "f1", ""])
def test_an_unknown_metric_is_refused_with_the_known_ones(name):
    with pytest.raises(UnknownNameError, match="ndcg, ndcg_exp, precision, recall") as caught:
        metric_name(name)
    if name.startswith("recal"):
        assert "did you mean 'recall@5'?" in str(caught.value)


@pytest.mark.parametrize("name", ["recall@0", "recall@-1", "recall@x", "recall@", "recall@1.5", "precision"])
def test_a_bad_cutoff_is_refused(name):
    with pytest.raises(ConfigError, match=r"@10"):
        metric_name(name)


@pytest.mark.parametrize("cutoffs", [[], [0], [True], ["5"], [1.5]])
def test_bad_top_k_values_are_refused(cutoffs):
    with pytest.raises(ConfigError, match="top_k_values"):
        default_metrics(cutoffs)


@pytest.mark.parametrize(
    "call",
    [
        lambda: from_results([["a"]], []),
        lambda: from_results([["a"], ["b"]], [{"a"}, {"b"}], query_ids=["q", "q"]),
        lambda: from_results([["a"]], ["a"]),
        lambda: from_ranks([[1, 2]]),
        lambda: from_ranks([1, 2], query_ids=["q", "q"]),
    ],
)
def test_input_that_does_not_fit_together_is_refused(call):
    with pytest.raises(DataError):
        call()
