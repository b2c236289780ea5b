"""The family's loop: means, resuming, stopping, what must not change."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

from trainshed.errors import CheckpointError, ConfigError, DataError, MissingExtraError, RunError
from trainshed.models.encoders import weights_hash
from trainshed.plan.interrupts import Interrupted
from trainshed.plan.metrics import MetricsLog, read_metrics
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.transformers_family import TransformersTrainer

SEVEN = {"num_train_epochs": 2, "per_device_train_batch_size": 3, "logging_steps": 3, "save_steps": 2}
SEVEN["learning_rate"] = 0.05


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.drop, self.head = nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.frozen(x)))).squeeze(-1)


class Regression(TransformersTrainer):
    """Weighted least squares: example i weighs 1 + i % 3."""

    algorithm = "regression"

    def __init__(self, count=20, spoil=None, **more):
        super().__init__(**more)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = Net()
            self.x, self.noise = torch.randn(count, 4), torch.randn(max(count, 1))
        self.count, self.spoil, self.seen = count, spoil, []

    @classmethod
    def from_run(cls, context):
        raise NotImplementedError

    @property
    def module(self):
        return self.net

    def train_data(self):
        return range(self.count)

    def eval_data(self):
        return range(0, self.count, 2)

    def collate(self, rows):
        rows = torch.tensor(rows)
        return {"rows": rows, "x": self.x[rows], "y": self.x[rows].sum(1), "w": 1.0 + rows % 3}

    def loss_sum(self, model, batch):
        if model.training:
            self.seen.append(batch["rows"].tolist())
            self.measure("regression/size", len(batch["rows"]))
        loss = (batch["w"] * (model(batch["x"]).float() - batch["y"]) ** 2).sum()
        if self.spoil is not None and len(self.seen) == self.spoil and model.training:
            loss = loss * float("nan")
        return loss

    def loss_weight(self, batch):
        return batch["w"].sum().item()

    def save(self, path):
        raise NotImplementedError


class KillAt(TrainerCallback):
    def __init__(self, step, how):
        self.step, self.how = step, how

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.how()


def crash():
    raise OSError("killed")


def settings(path, **more):
    return TrainerSettings(directory=path / "checkpoints", resume=True, device="cpu", **more)


def names(path):
    return sorted(p.name for p in (path / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    trainer = Regression(arguments=SEVEN, seed=5, settings=settings(path))
    return trainer.train(), weights_hash(trainer.net), trainer.seen


def test_trains_and_reports(undisturbed):
    result, _, seen = undisturbed
    assert result.steps == 14
    assert [row["step"] for row in result.history] == [1, 3, 6, 9, 12]
    assert result.history[1]["regression/size"] == 3
    assert {i for batch in seen[:7] for i in batch} == set(range(20))
    assert seen[:7] != seen[7:]


def test_it_learns():
    trainer = Regression(arguments={**SEVEN, "num_train_epochs": 10})
    before = trainer.evaluate()["eval/loss"]
    trainer.train()
    assert trainer.evaluate()["eval/loss"] < 0.5 * before


def test_the_mean_is_over_all_that_a_step_saw():
    """One step over everything equals weighted least squares, however it is cut into micro-batches."""
    results = []
    for size, pieces in ((20, 1), (4, 5), (7, 3)):
        trainer = Regression(
            arguments={
                "per_device_train_batch_size": size,
                "gradient_accumulation_steps": pieces,
                "max_steps": 1,
                "learning_rate": 0.1,
                "optim": "sgd",
                "max_grad_norm": 0,
            }
        )
        trainer.net.drop.p = 0.0
        before = trainer.net.head.bias.item()
        batch = trainer.collate(list(range(20)))
        mean = (trainer.loss_sum(trainer.net.eval(), batch) / batch["w"].sum()).item()
        result = trainer.train()
        assert result.loss == pytest.approx(mean, rel=1e-5)
        results.append(trainer.net.head.bias.item() - before)
    assert results[0] != 0
    assert results == pytest.approx([results[0]] * 3, rel=1e-4)


@pytest.mark.parametrize("step", [1, 5, 7, 8, 13])
def test_killed_and_resumed_ends_the_same(undisturbed, tmp_path, step):
    whole, weights, seen = undisturbed
    with pytest.raises(OSError, match="killed"):
        Regression(
            arguments=SEVEN, seed=5, settings=settings(tmp_path), callbacks=[KillAt(step, crash)]
        ).train()
    torch.rand(3)
    again = Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path))
    result = again.train()
    assert weights_hash(again.net) == weights
    assert result == whole
    assert again.seen == seen[(step - 1) // 2 * 2 :]


def test_resumed_with_accumulation_best_model_and_metrics(tmp_path):
    arguments = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "num_train_epochs": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 3,
        "learning_rate": 0.3,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
    }
    outcomes = []
    for kill in (None, 3, 13):
        path = tmp_path / str(kill)
        log = path / "metrics.jsonl"
        if kill:
            with pytest.raises(OSError, match="killed"):
                Regression(
                    arguments=arguments,
                    settings=settings(path, metrics=MetricsLog(log)),
                    callbacks=[KillAt(kill, crash)],
                ).train()
            moved = tmp_path / f"moved-{kill}"
            path.rename(moved)
            path, log = moved, moved / "metrics.jsonl"
        trainer = Regression(arguments=arguments, settings=settings(path, metrics=MetricsLog(log)))
        result = trainer.train()
        rows = [{k: v for k, v in row.items() if k != "time"} for row in read_metrics(log)]
        outcomes.append((result, weights_hash(trainer.net), rows))
    best = outcomes[0][0].metrics["eval/best"]
    losses = [row["eval/loss"] for row in outcomes[0][0].history if "eval/loss" in row]
    assert best == min(losses)
    assert outcomes[1] == outcomes[2] == outcomes[0]
    assert trainer.evaluate()["eval/loss"] == best
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_a_finished_training_is_not_done_again(undisturbed, tmp_path):
    whole, weights, _ = undisturbed
    Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path)).train()
    again = Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path))
    assert again.train() == whole
    assert (weights_hash(again.net), again.seen) == (weights, [])


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest"])
def test_a_damaged_newest_checkpoint_falls_back(undisturbed, tmp_path, capsys, damage):
    _, weights, _ = undisturbed
    with pytest.raises(OSError, match="killed"):
        Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path), callbacks=[KillAt(7, crash)]).train()
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    newest = tmp_path / "checkpoints" / "checkpoint-6"
    file = newest / ("manifest.json" if damage == "manifest" else "optimizer.pt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data) if damage == "flip" else data[: len(data) // 2])
    if damage == "gone":
        file.unlink()
    again = Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path))
    again.train()
    printed = capsys.readouterr().err
    assert "checkpoint-6 is not usable" in printed
    assert "going on from step 4" in printed
    assert weights_hash(again.net) == weights
    assert len(again.seen) == 10


def test_no_intact_checkpoint_stops_until_they_are_deleted(undisturbed, tmp_path):
    with pytest.raises(OSError, match="killed"):
        Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path), callbacks=[KillAt(3, crash)]).train()
    weights = tmp_path / "checkpoints" / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(b"")
    (tmp_path / "checkpoints" / ".checkpoint-4.partial").mkdir()
    again = Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path))
    with pytest.raises(CheckpointError, match=r"checkpoint-2: model\.safetensors is damaged"):
        again.train()
    assert again.seen == []
    assert weights.exists()
    shutil.rmtree(tmp_path / "checkpoints")
    again = Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path))
    again.train()
    assert weights_hash(again.net) == undisturbed[1]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    Regression(arguments=SEVEN, settings=settings(tmp_path)).train()
    for other in (
        Regression(arguments={**SEVEN, "learning_rate": 1e-2}, settings=settings(tmp_path)),
        Regression(arguments=SEVEN, seed=1, settings=settings(tmp_path)),
        Regression(count=21, arguments=SEVEN, settings=settings(tmp_path)),
    ):
        with pytest.raises(CheckpointError, match="another training"):
            other.train()
    fresh = TrainerSettings(directory=tmp_path / "checkpoints", device="cpu")
    Regression(arguments={**SEVEN, "learning_rate": 1e-2}, settings=fresh).train()
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-14"]


def test_checkpoints_hold_safetensors_and_no_pickle_of_arguments(tmp_path):
    Regression(arguments=SEVEN, settings=settings(tmp_path)).train()
    files = {p.name for p in (tmp_path / "checkpoints" / "checkpoint-14").iterdir()}
    assert {"model.safetensors", "manifest.json", "trainer_state.json"} <= files
    assert "training_args.bin" not in files


def test_frozen_weights_stay_and_others_move(undisturbed):
    trainer = Regression(arguments=SEVEN, seed=5)
    before = {name: p.clone() for name, p in trainer.net.named_parameters()}
    trainer.train()
    for name, parameter in trainer.net.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("frozen")
    assert weights_hash(trainer.net) == undisturbed[1]  # without a directory too


@pytest.mark.parametrize("arguments", [{"max_steps": 0}, {"num_train_epochs": 0}])
def test_no_step_changes_nothing(arguments):
    trainer = Regression(arguments=arguments)
    before = weights_hash(trainer.net)
    result = trainer.train()
    assert math.isnan(result.loss)
    assert (result.steps, weights_hash(trainer.net)) == (0, before)


def test_a_loss_that_is_no_number_stops_before_it_reaches_a_weight(tmp_path):
    trainer = Regression(spoil=6, arguments=SEVEN, settings=settings(tmp_path))
    with pytest.raises(RunError, match=r"loss is not a finite number \(nan\) at step 6") as caught:
        trainer.train()
    assert "checkpoint-4" in str(caught.value)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    assert all(torch.isfinite(p).all() for p in trainer.net.parameters())


def test_a_gradient_that_is_no_number_stops_before_it_reaches_a_weight():
    trainer = Regression(arguments=SEVEN)
    trainer.net.head.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(RunError, match="gradient is not a finite number"):
        trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.net.parameters())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_stops(undisturbed, tmp_path, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Interrupted):
        Regression(
            arguments=SEVEN,
            seed=5,
            settings=settings(tmp_path),
            callbacks=[KillAt(5, lambda: os.kill(os.getpid(), number))],
        ).train()
    assert "checkpoint-5" in names(tmp_path)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    again = Regression(arguments=SEVEN, seed=5, settings=settings(tmp_path))
    assert again.train().steps == 14
    assert weights_hash(again.net) == undisturbed[1]
    assert len(again.seen) == 9


def test_a_signal_without_a_directory_stops_too():
    callback = KillAt(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        Regression(arguments=SEVEN, callbacks=[callback]).train()


def test_the_metric_of_the_best_checkpoint_is_one_that_is_measured(tmp_path):
    class Measured(Regression):
        def evaluate(self):
            return {**super().evaluate(), "eval/rewards/margin": 1.0, "eval/runtime": 3.0}

    given = {
        **SEVEN,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
    }
    for name in ("rewards/margin", "rewards_margin", "eval_rewards/margin"):
        arguments = {**given, "metric_for_best_model": name}
        assert Measured(arguments=arguments).train().metrics["eval/best"] == 1.0
    with pytest.raises(ConfigError, match="the evaluation measures no 'rewards_margn'") as caught:
        Measured(arguments={**given, "metric_for_best_model": "rewards_margn"}).train()
    assert caught.value.fix == "did you mean 'rewards_margin'? Known: loss, rewards_margin"


def test_early_stopping_and_a_resume_after_it(tmp_path):
    arguments = {**SEVEN, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.0}
    arguments |= {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
    for _ in range(2):
        trainer = Regression(
            arguments=arguments,
            settings=settings(tmp_path),
            callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        )
        assert trainer.train().steps == 6


def test_the_world_outside_does_not_notice(tmp_path):
    trainer = Regression(arguments={**SEVEN, "bf16": "auto"})
    trainer.net.train()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    trainer.train()
    assert torch.equal(torch.rand(1), expected)
    assert "forward" not in trainer.net.__dict__
    assert trainer.net(trainer.x).dtype == torch.float32
    assert not trainer.net.training


def test_bfloat16_computes_in_it():
    kinds = set()
    trainer = Regression(arguments={**SEVEN, "max_steps": 1, "bf16": True})
    trainer.net.head.register_forward_hook(lambda module, args, output: kinds.add(output.dtype))
    result = trainer.train()
    assert kinds == {torch.bfloat16}
    assert next(trainer.net.parameters()).dtype == torch.float32
    assert math.isfinite(result.loss)


def test_evaluation_changes_nothing_and_does_not_depend_on_the_batch():
    trainer = Regression(arguments={"per_device_eval_batch_size": 3})
    other = Regression(arguments={"per_device_eval_batch_size": 100})
    trainer.net.train()
    state = torch.random.get_rng_state()
    assert trainer.evaluate()["eval/loss"] == pytest.approx(other.evaluate()["eval/loss"], rel=1e-6)
    assert trainer.net.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    trainer = Regression(arguments=SEVEN, settings=settings(tmp_path))

    def full(path):
        if len(trainer.seen) > 4:
            raise RuntimeError(
                "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file"
            )

    trainer.save_state = full
    with pytest.raises(RunError, match="disk is full"):
        trainer.train()
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]


def test_bad_arguments():
    with pytest.raises(ConfigError, match="learning_rate"):
        Regression(arguments={"learning_rte": 1})
    with pytest.raises(ConfigError, match="no use"):
        Regression(arguments={"label_smoothing_factor": 0.1})
    with pytest.raises(ConfigError, match="do not fit"):
        Regression(
            arguments={"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps"}
        ).train()
    with pytest.raises(DataError, match="empty"):
        Regression(count=0).train()
    trainer = Regression(arguments={"eval_strategy": "epoch"})
    trainer.eval_data = lambda: None
    with pytest.raises(ConfigError, match="eval_strategy"):
        trainer.train()
    trainer = Regression()
    trainer.net.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        trainer.train()


def test_arguments_as_an_object(undisturbed, tmp_path):
    arguments = TrainingArguments(**SEVEN, use_cpu=True, output_dir=str(tmp_path / "checkpoints"))
    trainer = Regression(arguments=arguments, seed=5)
    trainer.train()
    assert weights_hash(trainer.net) == undisturbed[1]
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-14"]


def test_order_as_given():
    trainer = Regression(arguments={**SEVEN, "train_sampling_strategy": "sequential"})
    trainer.train()
    assert trainer.seen[0] == [0, 1, 2] == trainer.seen[7]


def test_progress_metrics_and_tensorboard(tmp_path, capsys):
    steps = []
    made = settings(
        tmp_path,
        metrics=MetricsLog(tmp_path / "metrics.jsonl"),
        trackers=("tensorboard",),
        on_step=lambda step, total: steps.append((step, total)),
        name="regression.3",
    )
    Regression(arguments=SEVEN, settings=made).train()
    assert steps == [(step, 14) for step in range(1, 15)]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "regression.3: 14/14" in captured.err
    rows = [json.loads(line) for line in Path(tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "time", "train/loss", "train/learning_rate", "regression/size"} <= rows[1].keys()
    assert list((tmp_path / "tensorboard").rglob("events.*"))


def test_a_tracker_that_is_not_installed():
    with pytest.raises(MissingExtraError, match=r"trainshed\[wandb\]"):
        Regression(arguments=SEVEN, settings=TrainerSettings(trackers=("wandb",), device="cpu")).train()
