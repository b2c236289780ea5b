"""Answer metrics against the rouge_score package and against hand-computed values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from trainshed.errors import DataError, ModelError
from trainshed.evaluation.answers import (
    citation_scores,
    exact_match,
    longest_common_subsequence,
    normalize_answer,
    rouge_l,
    score_answers,
    score_citations,
    score_likelihoods,
    token_f1,
)

words = st.lists(
    st.sampled_from(["a", "cat", "Sat", "on", "the", "mat.", "x_y", "3.5", "Ünïcode", "-"]), max_size=12
)
texts = words.map(" ".join) | st.text(max_size=20)


@settings(max_examples=200, deadline=None)
@given(prediction=texts, accepted=st.lists(texts, min_size=1, max_size=3))
def test_rouge_l_equals_the_rouge_score_package(prediction, accepted):
    right = RougeScorer(["rougeL"]).score_multi(accepted, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, accepted) == pytest.approx(right)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=70), st.lists(st.sampled_from("abc"), max_size=70))
def test_the_bitwise_subsequence_equals_the_table(first, second):
    row = [0] * (len(second) + 1)
    for x in first:
        above = row
        row = [0]
        for j, y in enumerate(second):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    assert longest_common_subsequence(first, second) == row[-1]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat,  sat!", "cat sat"),
        ("an apple a day", "apple day"),
        ("theatre and another", "theatre and another"),
        ("it's", "its"),
        ("", ""),
        ("the", ""),
    ],
)
def test_normalisation_is_that_of_squad(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("prediction", "accepted", "exact", "f1"),
    [
        ("The cat.", ["a cat"], 1.0, 1.0),
        ("cat dog", ["cat"], 0.0, 2 / 3),
        ("cat cat", ["cat dog"], 0.0, 0.5),
        ("dog", ["cat", "dog"], 1.0, 1.0),
        ("", ["cat"], 0.0, 0.0),
        ("cat", [""], 0.0, 0.0),
        ("", [""], 1.0, 1.0),
        ("()", ["()"], 1.0, 1.0),
        ("[]", ["()"], 0.0, 0.0),
        ("None", ["()", "none"], 1.0, 1.0),
        ("one two three four", ["two four five"], 0.0, 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)),
    ],
)
def test_exact_match_and_f1(prediction, accepted, exact, f1):
    assert exact_match(prediction, accepted) == exact
    assert token_f1(prediction, accepted) == pytest.approx(f1)


@settings(max_examples=100, deadline=None)
@given(prediction=texts, accepted=st.lists(texts, min_size=1, max_size=3))
def test_an_exact_match_has_f1_one_and_another_accepted_answer_never_hurts(prediction, accepted):
    if exact_match(prediction, accepted):
        assert token_f1(prediction, accepted) == 1.0
    assert 0.0 <= token_f1(prediction, accepted[:1]) <= token_f1(prediction, accepted) <= 1.0
    assert exact_match(prediction, [*accepted, prediction]) == 1.0


@pytest.mark.parametrize(
    ("cited", "supporting", "scores"),
    [
        (["p1", "p2"], {"p1"}, (0.5, 1.0)),
        (["p1", "p1"], {"p1", "p3"}, (1.0, 0.5)),
        ([], {"p1"}, (0.0, 0.0)),
        (["p2"], {"p1"}, (0.0, 0.0)),
    ],
)
def test_citations(cited, supporting, scores):
    assert citation_scores(cited, supporting) == scores


def test_citations_are_undefined_where_no_supporting_passage_is_known():
    assert all(map(math.isnan, citation_scores(["p1"], set())))
    scored = score_citations([["p1"], ["p2"]], [{"p1"}, set()])
    np.testing.assert_array_equal(scored["citation_precision"], [1.0, np.nan])


def test_likelihoods_per_token_and_per_answer():
    values, weights = score_likelihoods(np.array([4.0, 30.0]), np.array([2, 10]))
    np.testing.assert_allclose(values["answer_nll"], [2.0, 3.0])
    np.testing.assert_allclose(values["sequence_nll"], [4.0, 30.0])
    overall = np.average(values["token_nll"], weights=weights["token_nll"])
    assert overall == pytest.approx(34.0 / 12)


def test_many_predictions_at_once():
    scored = score_answers(["42", "the sea"], [("42",), ("sea", "ocean")])
    assert scored["exact_match"].tolist() == [1.0, 1.0]
    assert set(scored) == {"exact_match", "f1", "rouge_l"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_answers(["a"], []), "1 predictions for 0"),
        (lambda: score_answers(["a"], [()]), "row 0"),
        (lambda: score_answers(["a"], ["a"]), "row 0"),
        (lambda: score_citations([["a"]], []), "1 answers for 0"),
        (lambda: score_likelihoods([1.0], [1, 2]), "shape"),
        (lambda: score_likelihoods([1.0, 1.0], [1, 0]), "row 1"),
    ],
)
def test_input_that_does_not_fit_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_a_likelihood_that_is_not_finite_is_an_error_of_the_model():
    with pytest.raises(ModelError, match="row 1"):
        score_likelihoods([1.0, float("nan")], [3, 3])
