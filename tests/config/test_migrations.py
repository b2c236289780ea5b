"""Names of other systems, and names that libraries dropped."""

import dataclasses

import pytest

from trainshed.config.arguments import load_table
from trainshed.config.fields import all_trainer_parameters, training_keys
from trainshed.config.migrations import DROPPED, KEY_ALIASES, SECTION_ALIASES
from trainshed.config.parameters import COMPUTED_ARGUMENTS
from trainshed.config.schema import SECTIONS
from trainshed.errors import ConfigError

TARGETS = {f"{s}.{k}" for s, m in SECTIONS.items() for k in m.model_fields}
TARGETS |= {f"training.{k}" for p in all_trainer_parameters().values() for k in training_keys(p)}
LSR = "execution: {algorithm: lsr}\n"


def arguments(run):
    return run.config.training.arguments


@pytest.mark.parametrize(("section", "alias"), [(s, a) for s, names in KEY_ALIASES.items() for a in names])
def test_aliases_name_what_exists_and_are_no_names_themselves(section, alias):
    assert KEY_ALIASES[section][alias] in TARGETS
    assert f"{section}.{alias}" not in TARGETS


@pytest.mark.parametrize(("section", "name"), [(s, n) for s, names in DROPPED.items() for n in names])
def test_dropped_names_name_what_exists_or_say_what_to_do(section, name):
    dropped = DROPPED[section][name]
    # some algorithms have a parameter of their own of that name
    assert name == "max_prompt_length" or f"{section}.{name}" not in TARGETS
    assert bool(dropped.to) != bool(dropped.fix)
    assert not dropped.to or dropped.to in TARGETS or name == "save_safetensors"


def test_transformers_has_dropped_them():
    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    # these it still has, and this program computes them
    assert fields & set(DROPPED["training"]) == {"report_to", "use_cpu"}
    assert {"report_to", "use_cpu"} <= set(COMPUTED_ARGUMENTS)
    assert set(DROPPED["training"]) - fields >= {"warmup_ratio", "no_cuda", "evaluation_strategy"}


def test_sections_have_other_names(runs):
    (run,) = runs(
        "system: {device: cpu, use_wandb: true, wandb_project: mark}\n"
        "execution: {algorithm: pretrain}\n"
        "model_config_args: {model_name_or_path: org/m, attn_implementation: sdpa}\n"
        "rl_script_args: {dataset_name: org/d}\n"
        "rl_config_args: {learning_rate: 5.0e-6}\n"
    )
    config = run.config
    assert (config.execution.device, config.execution.trackers, config.execution.project) == (
        "cpu",
        ["wandb"],
        "mark",
    )
    assert (config.model.model_name_or_path, config.data.dataset_name) == ("org/m", "org/d")
    assert arguments(run)["learning_rate"] == 5e-6
    assert set(SECTION_ALIASES.values()) == {"execution", "model", "data", "training"}


def test_keys_have_other_names(runs):
    (run,) = runs(
        "execution: {algorithm: pretrain}\n"
        "model: {vocab_size: 5000, d_model: 256, n_heads: 8, n_layers: 4, d_ff: 512, max_length: 512}\n"
        "hyper_params: {batch_size: 8, num_epochs: 10, learning_rate: 0.0001, mixed_precision: true}\n"
    )
    assert (run.config.model.hidden_size, run.config.model.num_layers) == (256, 4)
    assert (run.config.model.num_heads, run.config.model.intermediate_size) == (8, 512)
    expected = {"per_device_train_batch_size": 8, "num_train_epochs": 10.0, "bf16": True}
    assert expected.items() <= arguments(run).items()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("warmup_ratio: 0.1", {"warmup_steps": 0.1}),
        ("warmup_ratio: 0", {"warmup_steps": 0.0}),
        ("evaluation_strategy: epoch", {"eval_strategy": "epoch"}),
        ("evaluation_strategy: no", {"eval_strategy": "no"}),
        ("per_gpu_train_batch_size: 3", {"per_device_train_batch_size": 3}),
        ("adafactor: true", {"optim": "adafactor"}),
        ("adafactor: false", {}),
        ("group_by_length: true", {"train_sampling_strategy": "group_by_length"}),
        ("push_to_hub_model_id: a/b", {"hub_model_id": "a/b"}),
        ("include_inputs_for_metrics: true", {"include_for_metrics": ["inputs"]}),
        ("save_safetensors: true", {}),
        ("save_safetensors: null", {}),
        ("warmup_ratio: null", {}),
    ],
)
def test_dropped_names_with_a_meaning_left(runs, written, expected):
    (run,) = runs(LSR + f"training: {{{written}}}\n")
    assert arguments(run) == {"logging_steps": 10.0, "save_total_limit": 2, **expected}


@pytest.mark.parametrize(
    ("text", "device", "dtype", "tokenizer", "trackers"),
    [
        ("training: {no_cuda: true}", "cpu", "float32", None, []),
        ("training: {no_cuda: false}", "auto", "float32", None, []),
        ("training: {use_cpu: true}", "cpu", "float32", None, []),
        ("training: {use_mps_device: true}", "mps", "float32", None, []),
        ("model: {torch_dtype: bfloat16}", "auto", "bfloat16", None, []),
        ("training: {torch_dtype: bfloat16}", "auto", "bfloat16", None, []),
        ("training: {tokenizer: org/t}", "auto", "float32", "org/t", []),
        ("training: {report_to: wandb}", "auto", "float32", None, ["wandb"]),
        ("training: {report_to: [wandb, tensorboard]}", "auto", "float32", None, ["wandb", "tensorboard"]),
        ("training: {report_to: none}", "auto", "float32", None, []),
        ("system: {use_wandb: true}\ntraining: {report_to: wandb}", "auto", "float32", None, ["wandb"]),
    ],
)
def test_dropped_names_that_moved_to_another_section(runs, text, device, dtype, tokenizer, trackers):
    (run,) = runs(LSR + text + "\n")
    config = run.config
    assert (config.execution.device, config.model.dtype) == (device, dtype)
    assert (config.model.tokenizer_name_or_path, config.execution.trackers) == (tokenizer, trackers)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("max_prompt_length: 128", "max_length"),
        ("overwrite_output_dir: true", "execution.output_dir"),
        ("warmup_ratio: 1.0", "training.warmup_steps"),
        ("save_safetensors: false", "always saved as safetensors"),
        ("report_to: all", "one by one"),
        ("logging_dir: x", "logs lie in the run directory"),
        ("fp16_backend: amp", "training.bf16"),
        ("include_tokens_per_second: true", "include_num_input_tokens_seen"),
    ],
)
def test_dropped_names_without_a_meaning(load, written, said):
    with pytest.raises(ConfigError) as caught:
        load(LSR + f"training:\n  {written}\n")
    assert said in str(caught.value)
    assert (caught.value.where or "").startswith("c.yaml:3, training.")


def test_dropped_names_are_told(load, capsys):
    config = load(LSR + "training:\n  warmup_ratio: 0.1\n  no_cuda: false\n", "model.torch_dtype=bfloat16")
    assert config.notes == (
        "c.yaml:3: training.warmup_ratio is a dropped name, read as training.warmup_steps: 0.1",
        "c.yaml:4: training.no_cuda is a dropped name and has no effect; leave it out",
        "command line: model.torch_dtype is a dropped name, read as model.dtype: bfloat16",
    )
    assert capsys.readouterr().err.splitlines() == list(config.notes)
    load(LSR)
    assert capsys.readouterr().err == ""


def test_sweeps_over_dropped_names(runs):
    found = runs(LSR + "training: {warmup_ratio: [0.1, 0.2]}\nmodel: {torch_dtype: [auto, float32]}\n")
    # the section `model` gets its first key when it is reached
    assert len(found) == 4
    assert {arguments(run)["warmup_steps"] for run in found} == {0.1, 0.2}
    assert {run.config.model.dtype for run in found} == {"auto", "float32"}


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("system: {device: cpu}\nexecution: {device: cuda}\n", "system.device (c.yaml:2)", "c.yaml:3, exec"),
        (
            "model:\n  d_model: 8\n  hidden_size: 8\n",
            "model.d_model (c.yaml:3)",
            "c.yaml:4, model.hidden_size",
        ),
        (
            "model: {dtype: auto}\nmodel_config_args: {torch_dtype: auto}\n",
            "model.dtype (c.yaml:2)",
            "c.yaml:3",
        ),
        (
            "training:\n  warmup_ratio: 0.1\n  warmup_steps: 3\n",
            "training.warmup_ratio (c.yaml:3)",
            "c.yaml:4",
        ),
        ("training:\n  use_cpu: true\nsystem: {device: cpu}\n", "training.use_cpu (c.yaml:3)", "c.yaml:4"),
    ],
)
def test_the_same_key_by_two_names_names_both_lines(load, text, first, second):
    with pytest.raises(ConfigError) as caught:
        load("hyper_params: {}\n" + text, "execution.algorithm=lsr")
    assert f"is set twice, the first time as {first}" in caught.value.what
    assert (caught.value.where or "").startswith(second)


def test_what_an_algorithm_calls_so_itself_is_left_alone(monkeypatch, runs):
    from trainshed.config.parameters import TrainerParameters
    from trainshed.registry import TRAINER_PARAMETERS

    class OwnNames(TrainerParameters):
        """Parameters that have names which mean something else elsewhere."""

        batch_size: int = 1
        """Its own idea of a batch."""
        max_prompt_length: int = 1
        """Its own limit."""

    objects = {**TRAINER_PARAMETERS._objects, "own": OwnNames}
    monkeypatch.setattr(TRAINER_PARAMETERS, "_objects", objects)
    (run,) = runs("execution: {algorithm: own}\ntraining: {batch_size: 3, max_prompt_length: 4}\n")
    assert (run.config.training.own.batch_size, run.config.training.own.max_prompt_length) == (3, 4)


def test_stages_have_other_names_too(runs):
    (run,) = runs(
        "pipeline:\n  a:\n    system: {algorithm: lsr, device: cpu}\n    hyper_params: {batch_size: 3}\n"
    )
    assert run.config.execution.device == "cpu"
    assert arguments(run)["per_device_train_batch_size"] == 3


def test_the_table_has_no_dropped_name():
    fields = load_table("transformers.TrainingArguments").fields
    assert not set(KEY_ALIASES["training"]) & set(fields)
