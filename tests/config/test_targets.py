"""Targets of `train`: what a user's file changes of a default, and what it does not."""

from pathlib import Path

import pytest

from trainshed.config.sweep import expand
from trainshed.config.targets import default_path, get_target, load_target, target_names
from trainshed.errors import ConfigError
from trainshed.registry import TRAINER_PARAMETERS

#: as they stand in the document of the users
BLOCKS = {
    "mamba": """
model:
  vocab_size: 5000
  d_model: 256
  n_heads: 8
  n_layers: 4
  max_length: 512

training:
  batch_size: 8
  num_epochs: 10
  learning_rate: 0.0001
  mixed_precision: true
""",
    "transformer": """
model:
  base_model: "bert-base-uncased"
  num_labels: 3

training:
  batch_size: 16
  num_epochs: 5
  learning_rate: 0.00005
""",
    "rl": """
model:
  policy_model: "ppo"
  hidden_dim: 256

training:
  total_timesteps: 10000
  learning_rate: 0.0003
""",
    "pretrain": """
system:
  device: "cpu"
  use_wandb: true
  wandb_project: "mark-training"

training:
  mixed_precision: true
  batch_size: 8
  gradient_accumulation_steps: 4
  num_workers: 4
""",
}


def load(target, text=None, overrides=(), *, tmp_path: Path | None = None, **more):
    path = None
    if text is not None:
        path = tmp_path / "own.yaml"
        path.write_text(text)
    return {run.name: run.config for run in expand(load_target(get_target(target), path, overrides, **more))}


@pytest.mark.parametrize("name", [n for n in target_names() if n != "full-pipeline"])
def test_every_built_in_target_has_a_default_that_is_valid(name):
    target = get_target(name)
    assert default_path(target) is not None
    configs = load(name)
    if name in TRAINER_PARAMETERS.names() and name != "rag":
        assert configs[name].execution.algorithm == name


@pytest.mark.parametrize("name", list(BLOCKS))
def test_the_users_blocks_are_accepted_as_they_stand(name, tmp_path):
    own = load(name, BLOCKS[name], tmp_path=tmp_path)[name]
    training = own.training.arguments | own.training.own.model_dump()
    if name == "mamba":
        assert (own.model.hidden_size, own.model.num_layers, own.model.vocab_size) == (256, 4, 5000)
        assert (training["num_train_epochs"], training["per_device_train_batch_size"]) == (10, 8)
        assert training["bf16"] is True
    if name == "transformer":
        assert own.model.model_name_or_path == "bert-base-uncased"
        assert (own.model.num_labels, training["num_train_epochs"]) == (3, 5)
    if name == "rl":
        assert (own.model.hidden_size, training["total_timesteps"]) == (256, 10000)
    if name == "pretrain":
        assert own.execution.device == "cpu"
        assert own.execution.trackers == ["wandb"]
        assert own.execution.project == "mark-training"
        assert training["gradient_accumulation_steps"] == 4
    if name != "pretrain":
        assert training["learning_rate"] in (0.0001, 0.00005, 0.0003)


def test_a_file_is_laid_over_the_default(tmp_path):
    default = load("pretrain")["pretrain"]
    own = load("pretrain", "training: {learning_rate: 0.5}\n", tmp_path=tmp_path)["pretrain"]
    assert own.training.arguments["learning_rate"] == 0.5
    assert own.model == default.model
    assert own.training.arguments["max_steps"] == default.training.arguments["max_steps"]


def test_epochs_take_the_place_of_the_defaults_steps(tmp_path):
    own = load("pretrain", "training: {num_epochs: 3}\n", tmp_path=tmp_path)["pretrain"]
    assert own.training.arguments["num_train_epochs"] == 3
    assert "max_steps" not in own.training.arguments


def test_data_and_model_of_a_file_replace_those_of_the_default(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a b c"}\n' * 4)
    text = f"data: {{dataset_name: {tmp_path}/rows.jsonl}}\nmodel: {{hidden_size: 32, num_heads: 2}}\n"
    configs = load("pretrain", text, tmp_path=tmp_path)
    assert list(configs) == ["pretrain"]  # nothing needs the default's corpus any more
    own = configs["pretrain"]
    assert own.data.dataset_name == str(tmp_path / "rows.jsonl")
    assert own.model.hidden_size == 32
    assert own.model.num_layers is None


def test_overrides_are_meant_for_the_targets_stage_and_win(tmp_path):
    own = load(
        "pretrain", "training: {learning_rate: 0.5}\n", ["training.learning_rate=0.25"], tmp_path=tmp_path
    )["pretrain"]
    assert own.training.arguments["learning_rate"] == 0.25
    device = load("pretrain", overrides=["execution.device=cpu", "model.hidden_size=64"])
    assert {config.execution.device for config in device.values()} == {"cpu"}
    assert device["pretrain"].model.hidden_size == 64
    assert device["pretrain"].model.num_layers == 4


def test_a_file_with_an_algorithm_is_taken_as_it_stands(tmp_path):
    text = "execution: {algorithm: pretrain}\ndata: {dataset_name: builtin}\n"
    configs = load("pretrain", text, tmp_path=tmp_path)
    assert list(configs) == ["pretrain"]
    assert configs["pretrain"].model.hidden_size is None


def test_a_file_of_another_algorithm_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="for the algorithm 'dpo', the target is 'pretrain'"):
        load("pretrain", "system: {algorithm: dpo}\n", tmp_path=tmp_path)


def test_problems_name_the_users_file_and_line(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load("pretrain", "training:\n  lerning_rate: 1\n", tmp_path=tmp_path)
    assert "own.yaml:2" in str(caught.value)
    assert "learning_rate" in str(caught.value)


def test_the_index_is_measured_only_on_request():
    assert list(load("rag")) == ["corpus", "index"]
    assert list(load("rag", evaluate=True)) == ["corpus", "index", "report"]
    with pytest.raises(ConfigError, match="no evaluation of its own"):
        load("dpo", evaluate=True)


def test_the_seeds_index_file_is_accepted(tmp_path):
    (tmp_path / "documents.jsonl").write_text('{"id": "a", "text": "one passage"}\n')
    text = (
        'model:\n  embedding_model: "sentence-transformers/all-MiniLM-L6-v2"\n'
        f'data:\n  documents_file: "{tmp_path}/documents.jsonl"\n'
    )
    configs = load("rag", text, tmp_path=tmp_path)
    assert configs["corpus"].data.documents == str(tmp_path / "documents.jsonl")
    assert configs["corpus"].data.dataset_name is None
    assert configs["index"].rag.retriever == "sentence-transformers/all-MiniLM-L6-v2"
    assert configs["index"].rag.store == "faiss"


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("transfer", "transformer"), ("reward_modeling", "reward"), ("full_pipeline", "full-pipeline")],
)
def test_other_names(name, canonical):
    assert get_target(name).name == canonical


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(ConfigError, match=r"there is no target 'mambo'[^?]*'mamba'"):
        get_target("mambo")
