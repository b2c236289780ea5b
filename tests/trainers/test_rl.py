"""PPO on an environment: it learns, says what is true, and goes on to the same weights to the last bit."""

import functools
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from tiny_environments import Corridor, Huge, Remembering, Signs
from trainshed.config.resolved import RunConfig, TrainingSection
from trainshed.config.schema import ExecutionSection, ModelSection
from trainshed.config.trainers.rl import RLParameters
from trainshed.errors import CheckpointError, ConfigError, MissingExtraError, RunError
from trainshed.models.encoders import weights_hash
from trainshed.plan.directory import RunDirectory
from trainshed.plan.interrupts import Interrupted, StopRequest
from trainshed.plan.metrics import MetricsLog, read_metrics, series
from trainshed.policy.control import Policy
from trainshed.stages.context import StageContext
from trainshed.stages.train import run
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.rl import RLTrainer

SHORT = {
    "total_timesteps": 7 * 64,
    "n_envs": 4,
    "n_steps": 16,
    "minibatch_size": 32,
    "n_epochs": 2,
    "learning_rate": 1e-2,
    "checkpoint_interval": 2,
    "eval_episodes": 3,
}


class KillAt(TrainerCallback):
    """Kills at a step, before a checkpoint of it is written."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


def make(environment=None, path=None, *, callbacks=(), seed=3, hidden_size=16, stop=None, **own):
    metrics = None if path is None else MetricsLog(path / "metrics.jsonl")
    return RLTrainer(
        environment,
        hidden_size=hidden_size,
        parameters=RLParameters(**{**SHORT, **own}),
        seed=seed,
        settings=TrainerSettings(
            directory=path and path / "checkpoints",
            resume=path is not None,
            device="cpu",
            metrics=metrics,
            stop=stop,
        ),
        callbacks=callbacks,
    )


def logged(path):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_metrics(path / "metrics.jsonl")]


def test_it_learns_which_action_is_right():
    trainer = make(Signs, total_timesteps=60 * 64, n_epochs=4, eval_episodes=20)
    before = trainer.evaluate()
    result = trainer.train()
    after = trainer.evaluate()
    assert before["eval/return"] < 7.0
    assert after["eval/return"] == after["eval/return_min"] == 10.0
    assert after["eval/episode_length"] == 10.0
    assert result.history[-1]["rl/return"] > 8.0
    assert result.history[-1]["eval/return"] == 10.0


def test_with_a_reward_for_nothing_it_learns_nothing():
    """The control: as many steps, and rewards that no action changes."""
    trainer = make(functools.partial(Corridor, cut=5), total_timesteps=30 * 64, entropy_coef=0.0)
    before = weights_hash(trainer.policy)
    result = trainer.train()
    assert weights_hash(trainer.policy) != before
    assert result.metrics["rl/return"] == 15.0
    assert trainer.evaluate()["eval/return"] == 15.0


@pytest.mark.parametrize("step", [64, 3 * 64, 5 * 64])
@pytest.mark.parametrize(
    "own",
    [
        {"env_name": "CartPole-v1"},
        {"env_name": "Pendulum-v1", "normalize_observations": True, "target_kl": 0.02},
        {"env_name": "tiny_environments:Signs", "env_kwargs": {"length": 23}, "eval_interval": 2},
    ],
    ids=["cartpole", "pendulum", "own"],
)
def test_killed_and_resumed_ends_the_same(tmp_path, step, own):
    whole = make(path=tmp_path / "whole", **own)
    expected = whole.train()
    part = tmp_path / "part"
    with pytest.raises(OSError, match="killed"):
        make(path=part, callbacks=[KillAt(step)], **own).train()
    torch.rand(3)
    np.random.rand(3)
    again = make(path=part, **own)
    assert again.train() == expected
    assert weights_hash(again.policy) == weights_hash(whole.policy)
    assert logged(part) == logged(tmp_path / "whole")
    assert again.evaluate() == whole.evaluate()


def test_a_killed_process_goes_on(tmp_path):
    """A kill that nothing can catch, as by a machine that goes away."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from transformers import TrainerCallback\n"
        "import test_rl\n"
        "class Kill(TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **kwargs):\n"
        "        if state.global_step == 5 * 64:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "test_rl.make(path=Path(sys.argv[1]), callbacks=[Kill()]).train()\n"
    )
    places = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__)), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    again, whole = make(path=tmp_path), make()
    again.train()
    whole.train()
    assert weights_hash(again.policy) == weights_hash(whole.policy)


def test_a_finished_training_is_not_done_again(tmp_path):
    expected = make(path=tmp_path).train()
    again = make(path=tmp_path, callbacks=[KillAt(64)])
    assert again.train() == expected


def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys):
    whole = make(path=tmp_path / "whole")
    whole.train()
    with pytest.raises(OSError, match="killed"):
        make(path=tmp_path, callbacks=[KillAt(5 * 64)]).train()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint-128",
        "checkpoint-256",
    ]
    weights = tmp_path / "checkpoints" / "checkpoint-256" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    again = make(path=tmp_path)
    again.train()
    assert "checkpoint-256 is not usable" in capsys.readouterr().err
    assert weights_hash(again.policy) == weights_hash(whole.policy)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    make(path=tmp_path).train()
    for own in ({"gamma": 0.9}, {"env_name": "Acrobot-v1"}, {"total_timesteps": 8 * 64}):
        with pytest.raises(CheckpointError, match="another training"):
            make(path=tmp_path, **own).train()
    # how often it is saved does not decide what comes out
    make(path=tmp_path, checkpoint_interval=3).train()


def test_a_signal_stops_after_the_rollout_with_a_checkpoint(tmp_path):
    whole = make(path=tmp_path / "whole")
    whole.train()

    class Signal(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            if state.global_step == 3 * 64:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        make(path=tmp_path, callbacks=[Signal()]).train()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"checkpoint-128", "checkpoint-192"}
    again = make(path=tmp_path)
    again.train()
    assert weights_hash(again.policy) == weights_hash(whole.policy)


def test_without_a_directory_a_signal_stops_too():
    stop = StopRequest()

    class Ask(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            stop.receive(signal.SIGINT)

    with pytest.raises(Interrupted):
        make(stop=stop, callbacks=[Ask()]).train()


def test_an_environment_that_cannot_be_put_back_is_refused(tmp_path):
    with pytest.raises(OSError, match="killed"):
        make(Remembering, tmp_path, callbacks=[KillAt(3 * 64)]).train()
    with pytest.raises(CheckpointError, match="not where it was"):
        make(Remembering, tmp_path).train()


def test_what_is_no_number_stops_before_it_reaches_a_weight(tmp_path):
    trainer = make(functools.partial(Huge, cut=5), tmp_path, normalize_advantage=False)
    before = weights_hash(trainer.policy)
    with pytest.raises(RunError, match=r"the loss is not a finite number .*at step 64"):
        trainer.train()
    assert weights_hash(trainer.policy) == before


def test_numbers_are_actions_too():
    trainer = make(env_name="Pendulum-v1", total_timesteps=3 * 64, eval_episodes=2, n_steps=16)
    result = trainer.train()
    assert result.steps == 192
    assert all(math.isfinite(value) for row in result.history for value in row.values())
    # no episode of 200 steps has ended, so nothing is said about returns
    assert "rl/return" not in result.history[-1]
    assert -2000.0 < result.history[-1]["eval/return"] < 0.0


def test_what_is_reported(tmp_path):
    own = {"eval_interval": 3, "clip_range_value": 0.2, "n_epochs": 1, "minibatch_size": 64}
    trainer = make(Signs, tmp_path, **own)
    result = trainer.train()
    rows = result.history
    assert [row["step"] for row in rows] == [64 * (number + 1) for number in range(7)]
    # one minibatch a rollout: the policy is the one that rolled out
    for row in rows:
        assert row["rl/approx_kl"] == pytest.approx(0.0, abs=1e-6)
        assert row["rl/clip_fraction"] == row["rl/value_clip_fraction"] == 0.0
        assert 0.0 < row["rl/entropy"] <= math.log(3) + 1e-6
        parts = row["rl/policy_loss"] + 0.5 * row["rl/value_loss"] - 0.01 * row["rl/entropy"]
        assert row["train/loss"] == pytest.approx(parts, abs=1e-6)
    assert rows[0]["rl/explained_variance"] <= 1.0
    # 16 steps are one episode of ten and a part of the next
    assert [row["rl/episodes"] for row in rows] == [4.0, 12.0, 16.0, 24.0, 32.0, 36.0, 44.0]
    assert all(row["rl/episode_length"] == 10.0 for row in rows)
    assert ["eval/return" in row for row in rows] == [False, False, True, False, False, True, True]
    rates = [row["train/learning_rate"] for row in rows]
    assert rates == pytest.approx([1e-2 * (1 - number / 7) for number in range(7)])
    assert result.loss == pytest.approx(np.mean([row["train/loss"] for row in rows]))
    assert result.metrics["rl/return"] == rows[-1]["rl/return"]
    assert [step for step, _ in series(read_metrics(tmp_path / "metrics.jsonl"), "rl/return")] == [
        row["step"] for row in rows
    ]


def test_the_rate_may_be_constant():
    rows = make(Signs, lr_schedule="constant").train().history
    assert {row["train/learning_rate"] for row in rows} == {1e-2}


def test_a_rollout_is_left_when_the_policy_has_moved_too_far():
    """With so small a target the second minibatch finds the policy too far."""

    class Count(TrainerCallback):
        steps = 0

        def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
            optimizer.register_step_post_hook(lambda *_: setattr(self, "steps", self.steps + 1))

    few, all_of_them = Count(), Count()
    make(Signs, target_kl=1e-12, callbacks=[few], total_timesteps=64).train()
    make(Signs, callbacks=[all_of_them], total_timesteps=64).train()
    assert (few.steps, all_of_them.steps) == (2, 4)


def test_no_global_generator_is_touched():
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(5)
    np.random.seed(5)
    first = make(Signs)
    first.train()
    found = torch.rand(2), np.random.rand(2)
    assert torch.equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    second, other = make(Signs), make(Signs, seed=4)
    second.train()
    other.train()
    assert weights_hash(second.policy) == weights_hash(first.policy) != weights_hash(other.policy)


def test_what_is_saved_acts_the_same(tmp_path):
    trainer = make(env_name="CartPole-v1")
    trainer.train()
    trainer.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert weights_hash(loaded) == weights_hash(trainer.policy)
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for row in rows:
        assert loaded.act(row) == trainer.policy.act(row)
    assert json.loads((tmp_path / "config.json").read_text())["environment"] == "CartPole-v1"
    assert RLTrainer("CartPole-v1", policy=loaded).policy is loaded


@pytest.fixture
def context(tmp_path):
    """Return what a run gives to its stage."""

    def made(**own):
        directory = RunDirectory(tmp_path / "run")
        directory.outputs.mkdir(parents=True, exist_ok=True)
        config = RunConfig(
            name="rl",
            stage="train",
            execution=ExecutionSection(algorithm="rl", seed=3, device="cpu", trackers=["tensorboard"]),
            model=ModelSection(hidden_size=16),
            training=TrainingSection("rl", RLParameters(**{**SHORT, **own}), {}),
        )
        return StageContext(directory, config)

    return made


def test_a_run_leaves_policy_metrics_and_events(context):
    given = context(eval_interval=2)
    result = run(given)
    whole = make(eval_interval=2)
    whole.train()
    assert weights_hash(Policy.load(given.directory.outputs)) == weights_hash(whole.policy)
    assert result.metrics["eval/return"] == whole.evaluate()["eval/return"]
    assert result.metrics["train/steps"] == 448.0
    assert len(read_metrics(given.directory.metrics().path)) == 7
    assert list((given.directory.checkpoints.parent / "tensorboard").iterdir())


def test_what_cannot_be_is_said(monkeypatch):
    with pytest.raises(ConfigError, match=r"no environment 'CartPol-v1'(.|\n)*CartPole-v1"):
        make(env_name="CartPol-v1")
    with pytest.raises(ConfigError, match="no episodes to evaluate"):
        make(Signs, eval_episodes=0).evaluate()
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torchrl" else there(name, *a)
    )
    with pytest.raises(MissingExtraError, match=r"trainshed\[rl\]"):
        make(Signs)
