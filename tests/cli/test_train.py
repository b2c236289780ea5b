"""`trainshed train`, `list-targets`, `history` and `load_model`, on small real trainings."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import trainshed
from trainshed.errors import ConfigError, ModelError

TINY = """
model: {vocab_size: 300, d_model: 16, n_heads: 2, n_layers: 1, d_ff: 32, max_length: 64}
training:
  batch_size: 4
  num_epochs: 1
  learning_rate: 0.01
  max_steps: 6
  save_steps: 2
  block_size: 32
  bf16: false
"""
PRETRAIN = TINY + "data: {dataset_name: ROWS}\n"


class Work:
    """A directory in which trainings are started as users do."""

    def __init__(self, path):
        self.path = path
        rows = [{"text": f"the number {n} stands after {n - 1} and before {n + 1}"} for n in range(60)]
        (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.write(PRETRAIN)

    def write(self, text):
        (self.path / "own.yaml").write_text(text.replace("ROWS", str(self.path / "rows.jsonl")))

    def command(self, *arguments):
        return [sys.executable, "-m", "trainshed.cli.main", *arguments]

    def __call__(self, *arguments):
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def train(self, *arguments):
        return self("train", "--target", "pretrain", "--config", "own.yaml", "--device", "cpu", *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    work = Work(tmp_path_factory.mktemp("trained"))
    work.done = work.train()
    assert work.done.returncode == 0, work.done.stdout + work.done.stderr
    return work


def test_what_was_made_lies_where_the_target_says(trained):
    best = trained.path / "checkpoints" / "pretrain" / "best_model"
    assert (best / "model.safetensors").is_file()
    assert not os.path.isabs(os.readlink(best))
    vocabulary = json.loads((best.parent / "vocab.json").read_text())
    assert len(vocabulary) == 300
    log = (trained.path / "logs" / "pretrain" / "train.log").read_text()
    assert "train" in log
    assert "checkpoints/pretrain/best_model" in trained.done.stdout


def test_a_second_time_does_nothing(trained):
    done = trained.train()
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_history_shows_it(trained):
    assert "pretrain" in trained("history").stdout
    (row,) = json.loads(trained("history", "--json").stdout)
    assert row["state"] == "done"
    assert row["target"] == "pretrain"
    assert row["metrics"]["train/steps"] == 6


def test_history_of_an_empty_directory(tmp_path):
    done = Work(tmp_path)("history")
    assert done.returncode == 0
    assert "nothing was trained" in done.stdout


def test_the_model_is_loaded_by_its_targets_name(trained, monkeypatch):
    monkeypatch.chdir(trained.path)
    names = {}
    snippet = "from trainshed import load_model\nmodel, tokenizer, device = load_model('pretrain', 'cpu')"
    exec(compile(snippet, "<snippet>", "exec"), names)
    ids = names["tokenizer"]("the number 7", return_tensors="pt")
    assert names["model"](**ids).logits.shape[-1] == 300
    assert str(names["device"]) == "cpu"
    assert not names["model"].training


@pytest.mark.parametrize("name", ["mamba", "transformer", "rag_encoder", "rl_trained", "dpo"])
def test_a_model_that_was_not_trained_says_what_to_train(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="trainshed train --target"):
        trainshed.load_model(name)


def test_several_models_are_not_loaded_as_one():
    with pytest.raises(ConfigError, match="several models"):
        trainshed.load_model("full-pipeline")


def test_resume_needs_something_to_go_on_from(tmp_path):
    done = Work(tmp_path).train("--resume")
    assert done.returncode == 1
    assert "no checkpoint of pretrain" in done.stderr


def test_a_stopped_training_goes_on(trained, tmp_path):
    work = Work(tmp_path)
    overrides = ["training.max_steps=400", "training.save_steps=5"]
    command = work.command(
        *("train", "--target", "pretrain", "--config", "own.yaml", "--device", "cpu"), *overrides
    )
    process = subprocess.Popen(
        command, cwd=work.path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(work.path.glob("checkpoints/pretrain/runs/*/checkpoints/**/model.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    (row,) = json.loads(work("history", "--json").stdout)
    assert row["state"] == "interrupted"
    done = work.train("--resume", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resume" in done.stdout
    assert (work.path / "checkpoints" / "pretrain" / "best_model" / "model.safetensors").is_file()


def test_something_in_the_way_is_not_replaced(trained, tmp_path):
    work = Work(tmp_path)
    best = work.path / "checkpoints" / "pretrain" / "best_model"
    best.mkdir(parents=True)
    done = work.train()
    assert done.returncode == 1
    assert "best_model" in done.stderr
    assert not list(best.parent.glob("runs/*/outputs"))


def test_the_targets_are_listed():
    done = subprocess.run(
        [sys.executable, "-m", "trainshed.cli.main", "list-targets"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("mamba", "transformer", "rag", "rl", "rlhf", "full-pipeline", "dpo"):
        assert f"\n{name} " in done.stdout


def test_an_index_is_built_measured_and_loaded(tmp_path, monkeypatch):
    work = Work(tmp_path)
    done = work("train", "--target", "rag", "--evaluate", "--device", "cpu", "data.max_passages=60")
    assert done.returncode == 0, done.stdout + done.stderr
    place = tmp_path / "checkpoints" / "rag"
    assert (place / "faiss.index").is_file()
    assert json.loads((place / "metadata.json").read_text())["count"] == 60
    assert "mrr@10" in done.stdout
    monkeypatch.chdir(tmp_path)
    retriever, tokenizer, device = trainshed.load_model("rag_encoder", "cpu")
    assert retriever.encode_queries(["what is it?"]).shape == (1, 384)
    assert tokenizer("a")["input_ids"]
    assert device.type == "cpu"
