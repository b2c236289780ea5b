"""Models with heads: whose weights are whose, which order labels have, what is refused."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertModel

from trainshed.config.schema import ModelSection
from trainshed.errors import ConfigError, ModelError
from trainshed.models.classifier import Classifier
from trainshed.models.encoders import weights_hash
from trainshed.models.task_models import Reading, load_task_model, longest_input, save_task_model


def load(directory, labels=("a", "b", "c"), task="single_label", seed=0, **section):
    return load_task_model(
        ModelSection(model_name_or_path=str(directory), **section), task=task, labels=labels, seed=seed
    )


def test_the_body_is_the_checkpoint_and_the_head_is_the_seeds(encoder_directory):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    model, tokenizer = load(encoder_directory)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights_hash(model.bert) == weights_hash(BertModel.from_pretrained(encoder_directory))
    assert weights_hash(load(encoder_directory)[0]) == weights_hash(model)
    other, _ = load(encoder_directory, seed=1)
    assert not torch.equal(other.classifier.weight, model.classifier.weight)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert tokenizer.pad_token == "[PAD]"
    assert not model.training
    assert longest_input(model) == 32


def test_a_trained_head_stays_with_its_labels_in_its_order(encoder_directory, tmp_path):
    model, tokenizer = load(encoder_directory, labels=("c", "a", "b"))
    save_task_model(model, tokenizer, tmp_path)
    again, _ = load(tmp_path, labels=("a", "b", "c"), seed=7)
    assert again.config.label2id == {"c": 0, "a": 1, "b": 2}
    assert weights_hash(again) == weights_hash(model)
    fewer, _ = load(tmp_path, labels=("a", "b"), seed=7)
    assert fewer.classifier.weight.shape == (2, 32)
    assert weights_hash(fewer.bert) == weights_hash(model.bert)


def test_a_body_that_does_not_fit_is_refused(encoder_directory, tmp_path):
    model, tokenizer = load(encoder_directory)
    save_task_model(model, tokenizer, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(ModelError, match="encoder's weights are missing"):
        load(tmp_path)


def test_what_cannot_be_loaded(encoder_directory, tmp_path):
    with pytest.raises(ConfigError, match="4 bits"):
        load(encoder_directory, load_in_4bit=True)
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "none")
    with pytest.raises(ModelError, match="holds no model"):
        Classifier.load(tmp_path)


def test_a_classifier_must_have_been_trained_as_one(encoder_directory, tmp_path):
    model, tokenizer = load(encoder_directory)
    save_task_model(model, tokenizer, tmp_path)
    with pytest.raises(ModelError, match="not trained as a classifier"):
        Classifier.load(tmp_path)
    Reading(task="token").store(model.config)
    with pytest.raises(ModelError, match="task token"):
        Classifier(model, tokenizer)


def test_a_classifier_pools_chunks_and_applies_its_temperature(encoder_directory):
    model, tokenizer = load(encoder_directory)
    plain = Classifier(model, tokenizer, Reading(max_length=8, overlap=2))
    text = "the red cat keeps the word which has the dog"
    warm = Classifier(model, tokenizer, Reading(max_length=8, overlap=2, temperature=3.0))
    pieces = tokenizer(
        text, max_length=8, stride=2, truncation=True, return_overflowing_tokens=True, padding=True
    )
    pieces.pop("overflow_to_sample_mapping")
    with torch.no_grad():
        logits = model(**{k: torch.tensor(v) for k, v in pieces.items()}).logits
    assert len(logits) > 1
    torch.testing.assert_close(plain.probabilities([text])[0], logits.mean(0).softmax(-1))
    torch.testing.assert_close(warm.probabilities([text])[0], (logits.mean(0) / 3).softmax(-1))
    many = plain.probabilities(["the cat", text, "the dog"], batch_size=2)
    torch.testing.assert_close(many[1], plain.probabilities([text])[0])
    assert plain.predict([]) == []
    with pytest.raises(TypeError, match="list of texts"):
        plain.probabilities("one text")


def test_the_library_reads_the_reading(encoder_directory, tmp_path):
    model, tokenizer = load(encoder_directory)
    Reading(temperature=1.7, overlap=3).store(model.config)
    save_task_model(model, tokenizer, tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert Reading.from_config(again.config) == Reading(temperature=1.7, overlap=3)
