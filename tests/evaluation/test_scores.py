"""Means, intervals, pairing by id, and JSON there and back."""

import json

import numpy as np
import pytest

from trainshed.errors import DataError, UnknownNameError
from trainshed.evaluation.scores import Scores, example_kinds
from trainshed.evaluation.significance import Resampling


def make(ids="abcd", **columns):
    values = {name.replace("_at_", "@"): np.array(column, dtype=float) for name, column in columns.items()}
    return Scores(ids=tuple(ids), values=values, kinds=("x", "x", "y", ""), resampling=Resampling(seed=5))


def test_json_there_and_back():
    scores = Scores(
        ids=("a", "b"),
        values={"f1": np.array([0.5, np.nan]), "token_nll": np.array([1.0, 3.0])},
        kinds=("x", "y"),
        weights={"token_nll": np.array([3.0, 1.0])},
        counts={"n_examples": 2},
    )
    written = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert written["f1"] == 0.5
    assert written["token_nll"] == 1.5
    assert set(written["intervals"]["f1"]) == {"mean", "low", "high", "n"}
    assert written["intervals"]["f1"]["n"] == 1
    assert written["by_kind"]["y"]["f1"] is None
    assert written["by_kind"]["y"]["token_nll"] == 3.0
    again = Scores.from_json(written)
    assert again.to_json() == scores.to_json()
    with pytest.raises(DataError, match="per_example"):
        Scores.from_json(scores.to_json(per_example=False))


def test_differences_are_paired_by_id_and_not_by_position():
    before = make("abcd", f1=[0.1, 0.2, 0.3, 0.4])
    after = make("dcba", f1=[0.5, 0.4, 0.3, 0.2])
    change = after.difference(before, "f1")
    assert change.mean == pytest.approx(0.1)
    assert change.low == pytest.approx(0.1)
    assert after.difference(before, "f1", kind="x").n == 2


def test_two_systems_on_different_questions_are_not_compared():
    with pytest.raises(DataError, match="such as 'd'"):
        make("abcd", f1=[0] * 4).difference(make("abce", f1=[0] * 4), "f1")
    short = Scores(ids=("a",), values={"f1": np.zeros(1)})
    with pytest.raises(DataError, match="different questions"):
        short.difference(make("abcd", f1=[0] * 4), "f1")


def test_weights_must_be_the_same_to_pair():
    values = {"token_nll": np.array([1.0, 2.0])}
    first = Scores(ids=("a", "b"), values=values, weights={"token_nll": np.array([1.0, 2.0])})
    second = Scores(ids=("b", "a"), values=values, weights={"token_nll": np.array([2.0, 1.0])})
    assert first.difference(second, "token_nll").mean == pytest.approx((1 * (1 - 2) + 2 * (2 - 1)) / 3)
    third = Scores(ids=("a", "b"), values=values, weights={"token_nll": np.array([5.0, 2.0])})
    with pytest.raises(DataError, match="tokenizer"):
        first.difference(third, "token_nll")


def test_unknown_names():
    scores = make(f1=[0] * 4, recall_at_5=[0] * 4)
    with pytest.raises(UnknownNameError, match=r"did you mean 'recall@5'"):
        scores.interval("recal@5")
    with pytest.raises(UnknownNameError, match="known: x, y"):
        scores.mean("f1", kind="nothing")


def test_each_metric_and_kind_has_a_seed_of_its_own():
    column = np.random.default_rng(0).normal(size=30)
    scores = Scores(ids=tuple(map(str, range(30))), values={"a": column, "b": column})
    assert scores.interval("a") == scores.interval("a")
    assert scores.interval("a").low != scores.interval("b").low


def test_columns_of_the_wrong_length_are_refused():
    with pytest.raises(DataError, match="4 questions"):
        make(f1=[0] * 3)


def test_kinds_are_empty_when_there_are_none():
    assert example_kinds(["", ""]) == ()
    assert example_kinds(["", "x"]) == ("", "x")
