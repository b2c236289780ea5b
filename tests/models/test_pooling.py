"""Pooling of chunks by hand, and the temperature that fits."""

import math

import pytest
import torch
from torch.nn import functional

from trainshed.errors import ModelError
from trainshed.models.pooling import class_log_probs, fit_temperature, label_log_probs

#: the first text has two chunks, the second one
LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
OWNERS = torch.tensor([0, 0, 1])


def softmax(*values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


@pytest.mark.parametrize("pooling", ["mean", "max", "logits"])
def test_a_text_of_one_chunk_is_its_softmax(pooling):
    found = class_log_probs(LOGITS, OWNERS, 2, pooling=pooling).exp()
    assert found[1].tolist() == pytest.approx(softmax(0, 0, 3))
    torch.testing.assert_close(found.sum(-1), torch.ones(2))


def test_pooled_classes_by_hand():
    first, second = softmax(2, 0, 0), softmax(0, 1, 0)
    expected = {
        "mean": [(a + b) / 2 for a, b in zip(first, second, strict=True)],
        "max": softmax(2, 1, 0),
        "logits": softmax(1, 0.5, 0),
    }
    for pooling, values in expected.items():
        found = class_log_probs(LOGITS, OWNERS, 2, pooling=pooling).exp()
        assert found[0].tolist() == pytest.approx(values)


def test_pooled_labels_by_hand():
    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    expected = {
        "mean": [(sigmoid(2) + 0.5) / 2, (0.5 + sigmoid(1)) / 2, 0.5],
        "max": [sigmoid(2), sigmoid(1), 0.5],
        "logits": [sigmoid(1), sigmoid(0.5), 0.5],
    }
    for pooling, values in expected.items():
        yes, no = label_log_probs(LOGITS, OWNERS, 2, pooling=pooling)
        assert yes.exp()[0].tolist() == pytest.approx(values)
        torch.testing.assert_close(yes.exp() + no.exp(), torch.ones(2, 3))


def test_the_temperature_divides_the_logits():
    for pooling in ("mean", "max", "logits"):
        found = class_log_probs(LOGITS, OWNERS, 2, pooling=pooling, temperature=2.0)
        torch.testing.assert_close(found, class_log_probs(LOGITS / 2, OWNERS, 2, pooling=pooling))


def test_large_logits_neither_overflow_nor_lose_their_gradient():
    logits = torch.tensor([[900.0, -900.0], [-900.0, 900.0]], requires_grad=True)
    for pooling in ("mean", "max", "logits"):
        found = class_log_probs(logits, torch.tensor([0, 0]), 1, pooling=pooling)
        assert torch.isfinite(found).all()
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert torch.isfinite(gradient).all()


def test_the_fitted_temperature_is_the_true_one():
    """Labels drawn at a known temperature: the fit finds it, and a grid finds nothing better."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 4, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(-1), 1, generator=generator).squeeze(1)

    def loss(temperature):
        return functional.cross_entropy(logits / temperature, labels)

    found = fit_temperature(loss)
    assert found == pytest.approx(2.5, rel=0.1)
    grid = [loss(torch.tensor(found * factor)).item() for factor in (0.9, 0.95, 1.05, 1.1)]
    assert loss(torch.tensor(found)).item() <= min(grid)


def test_separable_data_do_not_drive_it_to_nothing():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    found = fit_temperature(lambda t: functional.cross_entropy(logits / t, labels))
    assert 0.05 <= found < 1


def test_predictions_that_are_no_numbers():
    with pytest.raises(ModelError, match="no temperature"):
        fit_temperature(lambda t: t * float("nan"))
