"""Scoring answers that are there already, or that a function gives."""

import numpy as np
import pytest
import torch

from trainshed.data.examples import RagExample
from trainshed.errors import DataError, ModelError
from trainshed.evaluation.generation import evaluate_generation

EXAMPLES = [
    RagExample(query="largest planet?", response="Jupiter", id="a", passage_id="p1", kind="space"),
    RagExample(query="2 + 2?", response="4", id="b", kind="sums", answers=("4", "four")),
    RagExample(query="colour of the sky?", response="it is blue", id="c", passage_id="p3", kind="space"),
]


def test_answers_likelihoods_and_citations_together():
    scored = evaluate_generation(
        ["jupiter", "Four.", "blue sky"],
        EXAMPLES,
        nll=(torch.tensor([2.0, 1.0, 9.0]), torch.tensor([2, 1, 3])),
        citations=[["p1", "p2"], ["p9"], []],
    )
    assert scored.values["exact_match"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(scored.values["f1"], [1, 1, 0.4])
    np.testing.assert_allclose(scored.values["answer_nll"], [1, 1, 3])
    assert scored.mean("answer_nll") == pytest.approx(5 / 3)
    assert scored.mean("token_nll") == pytest.approx(12 / 6)
    assert scored.interval("token_nll").mean == pytest.approx(2.0)
    assert scored.mean("sequence_nll") == pytest.approx(4.0)
    assert scored.interval("citation_precision").n == 2  # no supporting passage is known for the second
    assert scored.mean("citation_precision") == 0.25
    assert scored.mean("citation_recall") == 0.5
    assert scored.mean("f1", kind="space") == pytest.approx(0.7)
    assert scored.predictions == ("jupiter", "Four.", "blue sky")


def test_functions_are_called_with_all_queries():
    calls = []

    def answer(queries):
        calls.append(queries)
        return [""] * len(queries)

    def nll(queries, answers):
        calls.append(answers)
        return np.ones(len(queries)), np.ones(len(queries))

    scored = evaluate_generation(answer, EXAMPLES, nll=nll)
    assert calls == [[e.query for e in EXAMPLES], ["Jupiter", "4", "it is blue"]]
    assert scored.counts == {"n_examples": 3, "n_empty_answers": 3}
    assert scored.mean("f1") == 0.0


def test_likelihoods_alone():
    scored = evaluate_generation(None, EXAMPLES, nll=([1.0, 2.0, 3.0], [1, 1, 1]))
    assert scored.metrics == ["answer_nll", "token_nll", "sequence_nll"]
    assert scored.predictions == ()


def test_supporting_passages_may_be_given():
    scored = evaluate_generation(None, EXAMPLES, citations=[["x"]] * 3, supporting=[{"x"}, {"x", "y"}, {"y"}])
    assert scored.values["citation_recall"].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"answers": ["a"], "examples": EXAMPLES}, DataError),
        ({"answers": [], "examples": []}, DataError),
        ({"answers": None, "examples": EXAMPLES}, DataError),
        ({"answers": None, "examples": EXAMPLES, "nll": ([1.0], [1])}, DataError),
        ({"answers": None, "examples": EXAMPLES, "nll": ([1.0, float("inf"), 1.0], [1, 1, 1])}, ModelError),
    ],
)
def test_wrong_input_is_refused(arguments, error):
    with pytest.raises(error):
        evaluate_generation(**arguments)
