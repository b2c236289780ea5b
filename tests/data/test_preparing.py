"""Rows of a run: loaded, looked at, and stopped where they are certainly wrong."""

import json
from dataclasses import replace

import pytest

from trainshed.config.resolved import RunConfig, TrainingSection
from trainshed.config.schema import DataSection, ExecutionSection
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.data.class_order import one_class_batches
from trainshed.data.jsonl import write_jsonl
from trainshed.data.preparing import prepare_rows
from trainshed.errors import ConfigError, DataError


def run(algorithm, path, arguments=None, **data):
    given = {"per_device_train_batch_size": 4, **(arguments or {})}
    training = TrainingSection(algorithm, PretrainParameters(), given)
    return RunConfig(
        name=algorithm,
        stage="train",
        execution=ExecutionSection(algorithm=algorithm, seed=3),
        data=DataSection(dataset_name=str(path), **data),
        training=training,
    )


@pytest.fixture
def pairs(tmp_path):
    rows = [
        {"prompt": f"the cat {n}", "chosen": f" keeps {n}", "rejected": f" has word {n}"} for n in range(20)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def test_one_dataset_serves_dpo_and_kto(pairs, tmp_path, tokenizer, capsys):
    for algorithm, name in (("dpo", "preference"), ("kto", "unpaired"), ("sft", "prompt-completion")):
        accepts = ("prompt-completion",) if algorithm == "sft" else ()
        loaded = prepare_rows(
            run(algorithm, pairs, validation_fraction=0.1), tokenizer, directory=tmp_path, accepts=accepts
        )
        assert loaded.format.name == name
        assert set(loaded.splits) == {"train", "validation"}
        report = json.loads((tmp_path / "data_report.json").read_text())
        assert report["treatment"]["batch_size"] == (4 if algorithm == "kto" else None)
        assert report["treatment"]["max_length"] == 1024
        assert "⟦the cat" in capsys.readouterr().err
    loaded = prepare_rows(run("kto", pairs), tokenizer)
    assert one_class_batches(loaded.rows("train"), 4) == []


def test_what_is_certainly_wrong_stops_unless_it_is_tolerated(tmp_path, tokenizer):
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "c"}])
    with pytest.raises(DataError, match="chosen_equals_rejected"):
        prepare_rows(run("dpo", tmp_path / "a.jsonl"), tokenizer)
    allowed = run("dpo", tmp_path / "a.jsonl", tolerate=["chosen_equals_rejected"])
    assert len(prepare_rows(allowed, tokenizer).rows("train")) == 1
    with pytest.raises(ConfigError, match="no finding 'chosen_equal'"):
        prepare_rows(run("dpo", tmp_path / "a.jsonl", tolerate=["chosen_equal"]), tokenizer)


def test_rows_that_a_trainer_would_drop_go_before_batches_are_formed(tmp_path, tokenizer, capsys):
    """Dropped later, eight bad answers with long prompts leave a batch of good ones alone."""
    rows = [{"prompt": f"the cat {n}", "completion": f" word {n}", "label": True} for n in range(16)]
    long = "the" + " cat" * 30
    rows += [
        {"prompt": f"{long if n < 8 else 'the'} {n}", "completion": " word", "label": False}
        for n in range(16)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    arguments = {"max_length": 24, "per_device_train_batch_size": 3}
    for seed in range(8):
        config = run("kto", tmp_path / "a.jsonl", arguments)
        config = replace(config, execution=ExecutionSection(algorithm="kto", seed=seed))
        loaded = prepare_rows(config, tokenizer)
        assert len(loaded.rows("train")) == len(loaded.places["train"]) == 24
        assert one_class_batches(loaded.rows("train"), 3) == []
    assert "train: 8 rows are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="answer_cut"):
        prepare_rows(run("kto", tmp_path / "a.jsonl", {"max_length": 2}), tokenizer)
    allowed = run("kto", tmp_path / "a.jsonl", {"max_length": 2}, tolerate=["answer_cut"])
    with pytest.raises(DataError, match="no row of train keeps an answer"):
        prepare_rows(allowed, tokenizer)
