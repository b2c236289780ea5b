"""Weights of labels by hand and against scikit-learn; the loss of texts of several chunks."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from trainshed.data.labelled import LabelledExample
from trainshed.errors import ConfigError, DataError
from trainshed.models.task_models import Reading
from trainshed.models.tokenizers import train_encoder_bpe
from trainshed.trainers.label_tasks import LabelTask, MultiLabelTask, class_weights

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def tokenizer():
    return train_encoder_bpe(["one two three four five"], vocab_size=280)


def test_balanced_weights_by_hand_and_as_in_scikit_learn():
    """Six texts of three classes: 6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1)."""
    labels = ["a", "a", "a", "b", "b", "c"]
    found = class_weights("balanced", NAMES, Counter(labels))
    assert found == pytest.approx([2 / 3, 1.0, 2.0])
    expected = compute_class_weight("balanced", classes=np.array(NAMES), y=np.array(labels))
    assert found == pytest.approx(expected.tolist())


def test_balanced_weights_of_several_labels_are_texts_without_over_texts_with():
    assert class_weights("balanced", NAMES, Counter(a=1, b=2, c=4), texts=4) == [3.0, 1.0, 0.25]


def test_weights_by_label():
    assert class_weights("none", NAMES, Counter("abc")) is None
    assert class_weights({"b": 3.0}, NAMES, Counter("abc")) == [1.0, 3.0, 1.0]
    with pytest.raises(ConfigError, match=r"'x' to weigh[\s\S]*class_weights"):
        class_weights({"x": 3.0}, NAMES, Counter("abc"))


def test_the_loss_of_a_text_is_that_of_its_pooled_chunks(tokenizer):
    """Two texts, the first of two chunks: log-softmax of the mean logits, weighted by class."""
    reading = Reading(max_length=8, overlap=2, pooling="logits")
    task = LabelTask(tokenizer, reading, NAMES, weights=[1.0, 2.0, 4.0])
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    batch = {"owners": torch.tensor([0, 0, 1]), "labels": torch.tensor([1, 2])}
    pooled = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).log_softmax(-1)
    expected = -2.0 * pooled[0, 1] - 4.0 * pooled[1, 2]
    torch.testing.assert_close(task.loss(SimpleNamespace(logits=logits), batch), expected)
    assert task.weight(batch) == 6.0


def test_a_batch_knows_whose_chunks_are_whose(tokenizer):
    task = LabelTask(tokenizer, Reading(max_length=8, overlap=2), NAMES)
    long, short = LabelledExample("one two three four five " * 3, ("b",)), LabelledExample("one", ("c",))
    rows = task.rows([long, short])
    batch = task.collate(rows)
    count = len(rows[0].windows)
    assert count > 1
    assert batch["owners"].tolist() == [0] * count + [1]
    assert batch["labels"].tolist() == [1, 2]
    assert len(rows[0]) == sum(len(each) for each in rows[0].windows)
    with pytest.raises(DataError, match="'d'"):
        task.rows([LabelledExample("one", ("d",), where="row 1")])


def test_several_labels_are_smoothed_towards_a_half(tokenizer):
    task = MultiLabelTask(tokenizer, Reading(), NAMES, smoothing=0.2)
    logits = torch.tensor([[1.0, -1.0, 0.0]])
    batch = {"owners": torch.tensor([0]), "labels": torch.tensor([[1.0, 0.0, 1.0]])}
    target = torch.tensor([[0.9, 0.1, 0.9]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    torch.testing.assert_close(task.loss(SimpleNamespace(logits=logits), batch), expected)
    assert task.weight(batch) == 3.0
