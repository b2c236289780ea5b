"""Classification metrics: against scikit-learn on random cases, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
)

from trainshed.errors import DataError
from trainshed.evaluation.classification import (
    accuracy,
    average_precision,
    brier_score,
    classification_metrics,
    expected_calibration_error,
    f1_by_class,
    macro_average_precision,
    macro_f1,
    micro_f1,
    multi_label_metrics,
    negative_log_likelihood,
)


def random_case(seed, n=40, classes=4):
    draw = np.random.default_rng(seed)
    table = draw.dirichlet(np.ones(classes), size=n)
    return table, draw.integers(0, classes, size=n)


@pytest.mark.parametrize("seed", range(5))
def test_single_label_metrics_equal_scikit_learn(seed):
    table, truth = random_case(seed)
    guess = table.argmax(1)
    assert accuracy(truth, guess) == pytest.approx(accuracy_score(truth, guess))
    assert macro_f1(truth, guess, 4) == pytest.approx(f1_score(truth, guess, average="macro"))
    expected = f1_score(truth, guess, average=None, labels=range(4))
    np.testing.assert_allclose(f1_by_class(truth, guess, 4), expected)
    assert negative_log_likelihood(table, truth) == pytest.approx(log_loss(truth, table, labels=range(4)))
    scaled = brier_score_loss(truth, table, labels=range(4), scale_by_half=False)
    assert brier_score(table, truth) == pytest.approx(scaled)


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_metrics_equal_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    table = draw.random((50, 3)).round(1)  # rounded, so that there are ties
    truth = draw.integers(0, 2, size=(50, 3))
    guess = (table > 0.5).astype(int)
    assert micro_f1(truth, guess) == pytest.approx(f1_score(truth, guess, average="micro"))
    assert macro_f1(truth, guess, 3) == pytest.approx(f1_score(truth, guess, average="macro"))
    expected = average_precision_score(truth, table, average="macro")
    assert macro_average_precision(truth, table) == pytest.approx(expected)
    found = multi_label_metrics(table, truth, ["a", "b", "c"])
    assert found["exact_match"] == pytest.approx(accuracy_score(truth, guess))
    assert found["f1/b"] == pytest.approx(f1_score(truth[:, 1], guess[:, 1]))


def test_f1_of_a_class_that_never_comes_up_is_undefined_and_left_out():
    assert math.isnan(f1_by_class([0, 1], [1, 1], 3)[2])
    assert macro_f1([0, 1], [1, 1], 3) == pytest.approx((0 + 2 / 3) / 2)
    table = np.array([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    assert "f1/c" not in classification_metrics(table, [0, 1], ["a", "b", "c"])


def test_average_precision_by_hand():
    """Relevant at ranks 1 and 3: (1/1 + 2/3) / 2."""
    assert average_precision([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6]) == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(average_precision([0, 0], [0.1, 0.2]))


def test_calibration_error_by_hand():
    """Two rows at 0.9, one right: a gap of 0.4; two at 0.6, both right: a gap of 0.4."""
    table = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]
    assert expected_calibration_error(table, [0, 1, 0, 1]) == pytest.approx(0.4)
    # one bin: confidence 0.75, accuracy 0.75
    assert expected_calibration_error(table, [0, 1, 0, 1], bins=1) == pytest.approx(0.0)


def test_a_bin_holds_its_upper_bound():
    """0.2 of five bins lies in the first with 0.1: their gaps, one up and one down, cancel."""
    table = np.zeros((2, 20))
    table[0, :5], table[1, :10] = 0.2, 0.1
    assert expected_calibration_error(table, [0, 19], bins=5) == pytest.approx((0.8 - 0.1) / 2)


@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 1000))
def test_bounds(n, classes, seed):
    table, truth = random_case(seed, n, classes)
    found = classification_metrics(table, truth, [str(i) for i in range(classes)])
    assert 0 <= found["ece"] <= 1
    assert 0 <= found["brier"] <= 2
    assert all(0 <= value <= 1 for name, value in found.items() if name not in ("nll", "brier"))


def test_a_certain_mistake_costs_much_but_not_infinitely():
    assert 100 < negative_log_likelihood([[1.0, 0.0]], [1]) < 1000


def test_shapes_that_do_not_fit():
    with pytest.raises(DataError, match="shape"):
        accuracy([0, 1], [0])
    with pytest.raises(DataError, match="for 2 labels"):
        brier_score([[0.5, 0.5]], [0, 1])
