"""Entities of BIO labels: hand cases, after the rules of seqeval."""

import pytest

from trainshed.errors import DataError
from trainshed.evaluation.entities import entities, entity_metrics, is_bio


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O O", []),
        ("B-P I-P O B-L", [("P", 0, 1), ("L", 3, 3)]),
        ("B-P B-P", [("P", 0, 0), ("P", 1, 1)]),
        ("I-P I-P", [("P", 0, 1)]),
        ("O I-P", [("P", 1, 1)]),
        ("B-P I-L", [("P", 0, 0), ("L", 1, 1)]),
        ("B-P I-P I-L I-P", [("P", 0, 1), ("L", 2, 2), ("P", 3, 3)]),
        ("B-X-Y I-X-Y", [("X-Y", 0, 1)]),
        ("", []),
    ],
)
def test_entities(labels, expected):
    assert entities(labels.split()) == expected


def test_metrics_by_hand():
    expected = [["B-P", "I-P", "O"], ["B-L", "O", "B-P"]]
    predicted = [["B-P", "O", "O"], ["B-L", "O", "B-P"]]
    found = entity_metrics(expected, predicted)
    assert found["entity_precision"] == pytest.approx(2 / 3)
    assert found["entity_recall"] == pytest.approx(2 / 3)
    assert found["entity_f1"] == pytest.approx(2 / 3)
    assert (found["f1/L"], found["f1/P"]) == (1.0, 0.5)


def test_the_same_place_in_another_text_is_another_entity():
    assert entity_metrics([["B-P"], ["O"]], [["O"], ["B-P"]])["entity_f1"] == 0.0


def test_nothing_expected_and_nothing_predicted():
    assert entity_metrics([["O"]], [["O"]])["entity_f1"] == 0.0


def test_labels_of_the_scheme():
    assert is_bio(["O", "B-P", "I-P"])
    assert is_bio(["I-P"])
    assert not is_bio(["O"])
    assert not is_bio(["noun", "verb"])
    assert not is_bio(["O", "B-"])


def test_lengths_that_differ():
    with pytest.raises(DataError, match="numbers"):
        entity_metrics([["O", "O"]], [["O"]])
