"""The configuration that rl_salamandra_alignment's documentation shows, as it stands there.

Only what names files and devices is given anew on the command line.
"""

import json

from tiny_language import make_model, make_tokenizer, successors
from trainshed.cli.main import cli
from trainshed.config.load import load_config
from trainshed.config.sweep import expand
from trainshed.models.causal_lm import save_causal_lm

CONFIG = """
execution:
    algorithm: "dpo"
    venv: "<path_to_your_venv>"
    output_dir: "<path_to_your_output_dir>"
    distributed_config: "DSZero3Offload"

slurm:
    job-name: "<your_slurm_job_name>"
    # output: None
    # error: None
    nodes: 2
    cpus-per-task: 80
    gres: "gpu:4"
    time: "2:00:00"
    account: "bsc88"
    qos: "acc_debug"

rl_script_args:
    dataset_name: "<path_to_rl_dataset>"

model_config_args:
    model_name_or_path: "<path_to_model>"
    # output_dir: None
    attn_implementation: "flash_attention_2"
    torch_dtype: "bfloat16"

rl_config_args:
    # RL configs are subclasses of transformers.TrainingArguments

    # Different RL algorithms have different uses of beta.
    # However, in most of them, it is the weight of the KL-divergence (Loss=reward+Beta*KL)
    beta: 0.2
    max_length: 8192
    max_prompt_length: 128 # Default. When specified, you use the default data collator
    remove_unused_columns: false
    dataset_num_proc: 1
    # ====
    # From `TrainingArguments`:
    # ===
    learning_rate: 5.0e-6
    num_train_epochs: 2
    bf16: true
    eval_strategy: "steps"
    eval_steps: 0.05

    # logging_dir: None
    # local_rank: None
    report_to: "wandb"
    # These arguments help to manage GPU memory
    per_device_train_batch_size: 2
    per_device_eval_batch_size: 2
    gradient_accumulation_steps: 8
    gradient_checkpointing: true

environment:
    # Bash environment variables
    WANDB_PROJECT: "salamandra_alignment"
    WANDB_NAME: "test_alignment"
    # WANDB_DIR: None
"""


def write_files(tmp_path):
    save_causal_lm(make_model(), make_tokenizer(), tmp_path / "model")
    (tmp_path / "pairs").mkdir()
    for split, count in (("train", 64), ("validation", 16)):
        rows = "".join(json.dumps(row) + "\n" for row in successors(count, seed=count))
        (tmp_path / "pairs" / f"{split}.jsonl").write_text(rows)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return [
        f"execution.output_dir={tmp_path / 'out'}",
        "execution.device=cpu",
        "execution.trackers=[]",
        f"model.model_name_or_path={tmp_path / 'model'}",
        "model.attn_implementation=sdpa",
        f"data.dataset_name={tmp_path / 'pairs'}",
    ]


def test_it_trains_with_paths_and_device_given_anew(tmp_path, capsys):
    overrides = write_files(tmp_path)
    cli.main(["run", str(tmp_path / "config.yaml"), *overrides], standalone_mode=False)
    told = capsys.readouterr()
    assert "torch_dtype is a dropped name, read as model.dtype: bfloat16" in told.err
    assert "slurm is for jobs on a cluster" in told.err
    (run,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith("dpo-"))
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert (run / "outputs" / "model.safetensors").is_file()
    assert (run / "data_report.json").is_file()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("eval/rewards_accuracies" in row for row in rows)


def test_its_lists_are_twelve_experiments_six_of_each_algorithm(tmp_path):
    write_files(tmp_path)
    swept = (
        CONFIG.replace('algorithm: "dpo"', 'algorithm: ["dpo", "kto"]')
        .replace('"<path_to_model>"', '["model_1", "model_2"]')
        .replace("learning_rate: 5.0e-6", "learning_rate: [5.0e-6, 1.0e-5, 1.0e-6]")
        .replace("<path_to_your_output_dir>", str(tmp_path / "out"))
    )
    (tmp_path / "config.yaml").write_text(swept)
    runs = expand(load_config(tmp_path / "config.yaml", environ={}))
    algorithms = [run.config.execution.algorithm for run in runs]
    assert [algorithms.count(name) for name in ("dpo", "kto")] == [6, 6]
    rates = [run.config.training.arguments["learning_rate"] for run in runs]
    assert rates[:3] == [5e-6, 1e-5, 1e-6]
