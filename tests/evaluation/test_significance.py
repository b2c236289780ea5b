"""Intervals and p-values against scipy, and against what resampling must satisfy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainshed.errors import ConfigError, DataError
from trainshed.evaluation.significance import (
    Interval,
    Resampling,
    bootstrap_interval,
    geometric_difference,
    geometric_interval,
    paired_difference,
    randomisation_p,
    stable_seed,
)

MANY = Resampling(samples=20_000, permutations=20_000)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    "values",
    [np.random.default_rng(1).normal(3.0, 2.0, 60), 1.0 / np.random.default_rng(2).integers(1, 5, 120)],
    ids=["continuous", "few distinct values"],
)
def test_intervals_equal_those_of_scipy(values, confidence):
    ours = bootstrap_interval(values, resampling=Resampling(samples=20_000, confidence=confidence))
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    error = 0.06 * values.std() / np.sqrt(values.size)  # of a quantile that is itself resampled
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=error)
    assert ours.high == pytest.approx(theirs.high, abs=error)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=2, max_size=9))
def test_exact_p_values_equal_those_of_scipy(differences):
    ours = randomisation_p(differences, Resampling(permutations=2**9))
    theirs = stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert ours == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("digits", [None, 0], ids=["distinct", "equal magnitudes"])
def test_random_p_values_come_near_those_of_scipy(digits):
    rng = np.random.default_rng(3)
    before = rng.normal(0.0, 1.0, 80)
    after = before + rng.normal(0.2, 1.0, 80)
    differences = after - before if digits is None else np.round(after - before, digits)
    theirs = stats.permutation_test(
        (differences, np.zeros(80)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    ours = randomisation_p(differences, MANY)
    assert ours == pytest.approx(theirs.pvalue, abs=0.015)
    assert 0.01 < ours < 0.5


def test_a_paired_difference_is_far_narrower_than_two_intervals():
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 1, 300)
    after = before + rng.normal(0.03, 0.05, 300)
    change = paired_difference(after, before)
    assert change.mean == pytest.approx((after - before).mean())
    assert change.excludes_zero
    assert change.p_value < 0.001
    first, second = bootstrap_interval(before), bootstrap_interval(after)
    assert first.high > second.low  # apart they overlap
    assert change.high - change.low < 0.3 * (first.high - first.low)
    mirrored = paired_difference(before, after)
    assert mirrored.mean == pytest.approx(-change.mean)
    assert mirrored.p_value == pytest.approx(change.p_value)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    plan = Resampling(samples=400, confidence=0.9)
    covered = [
        (i := bootstrap_interval(rng.exponential(1.0, 100), resampling=plan)).low <= 1.0 <= i.high
        for _ in range(300)
    ]
    assert 0.83 <= np.mean(covered) <= 0.95


def test_equal_systems_do_not_differ():
    values = np.random.default_rng(0).uniform(size=50)
    change = paired_difference(values, values)
    assert (change.mean, change.low, change.high, change.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert not change.excludes_zero


def test_weights_give_the_interval_of_a_ratio():
    tokens = np.array([1.0, 10.0, 100.0, 5.0] * 30)
    per_token = np.random.default_rng(0).uniform(1, 3, 120)
    interval = bootstrap_interval(per_token, weights=tokens)
    assert interval.mean == pytest.approx((per_token * tokens).sum() / tokens.sum())
    assert interval.low < interval.mean < interval.high
    alike = bootstrap_interval(per_token, weights=np.full(120, 7.0), resampling=MANY)
    plain = bootstrap_interval(per_token, resampling=MANY)
    assert (alike.low, alike.high) == pytest.approx((plain.low, plain.high), abs=0.005)


def test_weighted_differences_pair_the_same_way():
    rng = np.random.default_rng(0)
    before, tokens = rng.uniform(1, 3, 100), rng.integers(1, 20, 100)
    change = paired_difference(before - 0.1, before, weights=tokens)
    assert change.mean == pytest.approx(-0.1)
    assert change.high < 0
    assert change.p_value < 0.001


def test_undefined_values_are_left_out_and_not_counted():
    assert bootstrap_interval([1.0, np.nan, 3.0]).n == 2
    assert bootstrap_interval([1.0, np.nan, 3.0]).mean == 2.0
    change = paired_difference([1.0, np.nan, 3.0], [0.0, 0.0, np.nan])
    assert (change.n, change.mean) == (1, 1.0)
    assert bootstrap_interval([5.0, 1.0], weights=[0, 2]).mean == 1.0


def test_nothing_gives_nothing():
    interval = bootstrap_interval([])
    assert interval.to_json() == {"mean": None, "low": None, "high": None, "n": 0}
    change = paired_difference([np.nan], [1.0])
    assert change.n == 0
    assert change.to_json()["p_value"] is None
    assert not change.excludes_zero


def test_one_value_is_its_own_interval():
    assert bootstrap_interval([0.25]) == Interval(0.25, 0.25, 0.25, 1)


def test_the_seed_decides_and_names_make_seeds():
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, resampling=Resampling(seed=1))
    assert stable_seed("mrr@10", "kind") == 5857199429936972016
    assert (
        len({stable_seed("a", "b"), stable_seed("ab"), stable_seed("a", "b", seed=1), stable_seed("b", "a")})
        == 4
    )
    assert Resampling(seed=3).named("x") == Resampling(seed=stable_seed("x", seed=3))


def test_more_values_than_a_block_of_memory():
    values = np.random.default_rng(0).normal(size=700_000)
    interval = bootstrap_interval(values, resampling=Resampling(samples=5))
    assert abs(interval.high - interval.low) < 0.01


@pytest.mark.parametrize(
    "settings_", [{"samples": -1}, {"permutations": 0}, {"confidence": 0.0}, {"confidence": 1.0}]
)
def test_senseless_settings_are_refused(settings_):
    with pytest.raises(ConfigError):
        Resampling(**settings_)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([[1.0]]),
        lambda: bootstrap_interval([1.0, 2.0], weights=[1.0]),
        lambda: paired_difference([1.0, 2.0], [1.0]),
    ],
)
def test_shapes_that_differ_are_refused(call):
    with pytest.raises(DataError):
        call()


def test_geometric_means_by_hand():
    logs, weights = np.log([2.0, 8.0]), np.array([1.0, 3.0])
    found = geometric_interval(logs, weights=weights, resampling=Resampling(samples=2000))
    assert found.mean == pytest.approx(2.0**2.5)
    assert (found.low, found.high) == pytest.approx((2.0, 8.0))
    half = geometric_difference(logs, logs - np.log(2.0), weights=weights)
    assert half.mean == pytest.approx(2.0**2.5 / 2)
    # each draw halves its own mean: the bounds are half of the interval's
    assert (half.low, half.high) == pytest.approx((1.0, 4.0))
    assert half.p_value == paired_difference(logs, logs - 1.0, weights=weights).p_value


def test_geometric_differences_pair_the_draws():
    """Systems that are the same differ by nothing in every draw, however different the questions are."""
    logs = np.random.default_rng(0).normal(3.0, 2.0, 60)
    weights = np.arange(1.0, 61.0)
    same = geometric_difference(logs, logs, weights=weights)
    assert (same.mean, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    undefined = np.where(np.arange(60) < 59, logs, np.nan)
    assert geometric_difference(undefined, logs, weights=weights).n == 59
    assert geometric_difference(logs, undefined, weights=weights).n == 59
    assert geometric_difference(logs * np.nan, logs, weights=weights).n == 0
