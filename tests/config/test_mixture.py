"""A mixture is a list of mappings: its files are inputs, its stages are needed, its keys are checked."""

import pytest

from trainshed.config.resolved import RunConfig
from trainshed.errors import ConfigError

MIXED = """\
execution: {algorithm: pretrain}
data:
  mixture:
    - {dataset_name: a.jsonl, weight: 3}
    - {dataset_name: org/name}
"""
PIPELINE = """\
pipeline:
  c: {stage: corpus, data: {dataset_name: builtin}}
  t:
    execution: {algorithm: pretrain}
    data:
      mixture:
        - {dataset_name: "${stages.c}/pretraining"}
        - {dataset_name: org/name, columns: {text: body}}
"""


@pytest.fixture(autouse=True)
def _file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "t"}\n')


def test_files_are_inputs_and_absolute(runs, tmp_path):
    (run,) = runs(MIXED)
    assert run.inputs == (str(tmp_path / "a.jsonl"),)
    named = [entry["dataset_name"] for entry in run.hyper_parameters["data"]["mixture"]]
    assert named == ["${input:data.mixture.0.dataset_name}", "org/name"]
    assert run.config.data.mixture[0].dataset_name == str(tmp_path / "a.jsonl")
    assert run.config.data.mixture[0].weight == 3
    assert RunConfig.from_json(run.config.to_json()) == run.config


def test_what_decides_the_result(runs):
    (plain,), (other,) = runs(MIXED), runs(MIXED.replace("weight: 3", "weight: 4"))
    assert plain.hyper_parameters != other.hyper_parameters
    (fraction,) = runs(MIXED, "data.validation_fraction=0.1")
    assert fraction.hyper_parameters != plain.hyper_parameters
    (tolerant,) = runs(MIXED, "data.tolerate=[double_bos]")
    assert tolerant.hyper_parameters == plain.hyper_parameters


def test_a_stage_that_is_named_in_it_is_needed(runs, tmp_path):
    run = runs(PIPELINE)[-1]
    assert run.needs == ("c",)
    resolved = run.config.resolved({"c": tmp_path / "out"})
    assert resolved.data.mixture[0].dataset_name == str(tmp_path / "out" / "pretraining")
    assert resolved.data.mixture[1] == run.config.data.mixture[1]
    with pytest.raises(ConfigError, match="no stage 'd'") as caught:
        runs(PIPELINE.replace("stages.c", "stages.d"))
    assert caught.value.where.startswith("c.yaml:7")


def test_a_single_source_is_a_list_of_one(runs):
    (run,) = runs("execution: {algorithm: pretrain}\ndata: {mixture: {dataset_name: org/a}}\n")
    assert [entry.dataset_name for entry in run.config.data.mixture] == ["org/a"]


def test_several_mixtures_are_a_sweep(runs):
    text = "execution: {algorithm: pretrain}\ndata:\n  mixture:\n"
    text += "    - [{dataset_name: org/a}]\n    - [{dataset_name: org/a}, {dataset_name: org/b}]\n"
    assert [len(run.config.data.mixture) for run in runs(text)] == [1, 2]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{dataset_name: a.jsonl, wieght: 2}", "unknown key 'wieght'"),
        ("{dataset_name: a.jsonl, weight: 0}", "greater than 0"),
        ("{weight: 1}", "field required"),
        ("{dataset_name: b.jsonl}", "no such file or directory"),
    ],
)
def test_what_is_wrong_with_a_source_is_told(runs, entry, message):
    with pytest.raises(ConfigError, match=message) as caught:
        runs(MIXED.replace("{dataset_name: org/name}", entry))
    assert caught.value.where.startswith("c.yaml:")
    assert "data.mixture" in caught.value.where


def test_what_cannot_be_meant(runs):
    with pytest.raises(ConfigError, match="leave one out"):
        runs(MIXED, "data.dataset_name=org/other")
    with pytest.raises(ConfigError, match="nothing to train on"):
        runs(MIXED, "data.validation_fraction=0.5", "data.test_fraction=0.5")


def test_algorithms_on_questions_do_not_read_it(load):
    text = "execution: {algorithm: lsr}\ndata: {mixture: [{dataset_name: org/name}], test_fraction: 0.1}\n"
    notes = "\n".join(load(text).notes)
    assert "does not read data.mixture, so it has no effect" in notes
    assert "does not read data.test_fraction, so it has no effect" in notes
