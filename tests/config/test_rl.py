"""What a configuration may say about `rl`: under our names, MARK's, Stable-Baselines3's, and not at all."""

import subprocess
import sys

import pytest

from trainshed.config.trainers.rl import RLParameters
from trainshed.errors import ConfigError

RL = "execution: {algorithm: rl}\n"
#: as MARK's documentation shows it, and the rest of its file for PPO
MARK = """\
model:
  policy_model: "ppo"
  hidden_dim: 256
  n_layers: 3

training:
  total_timesteps: 10000
  n_steps: 128
  batch_size: 32
  n_epochs: 4
  learning_rate: 0.0003
  gamma: 0.99
  gae_lambda: 0.95
  clip_range: 0.2
  vf_coef: 0.5
  ent_coef: 0.02
  max_grad_norm: 0.5

system: {device: cpu, use_wandb: false}
"""


def own(run):
    return run.config.training.own


def test_the_keys_of_mark_are_read(runs):
    (run,) = runs(RL + MARK)
    found = own(run)
    assert (found.total_timesteps, found.learning_rate, found.minibatch_size) == (10000, 0.0003, 32)
    assert (found.n_epochs, found.entropy_coef, found.vf_coef) == (4, 0.02, 0.5)
    assert (run.config.model.hidden_size, run.config.model.num_layers) == (256, 3)
    assert run.hyper_parameters["model"] == {"hidden_size": 256, "num_layers": 3}
    assert run.config.training.arguments == {}


def test_another_policy_than_ppo_is_refused(runs):
    with pytest.raises(ConfigError, match=r"'dqn' is not there: the algorithm `rl` is PPO"):
        runs(RL + "model: {policy_model: dqn}\n")


def test_other_names_may_be_swept_and_an_own_name_goes_before(runs):
    found = [own(run).minibatch_size for run in runs(RL + "training: {batch_size: [32, 64]}\n")]
    assert found == [32, 64]
    text = "training: {batch_size: 16}\npipeline:\n  a: {execution: {algorithm: rl}, training: {%s}}\n"
    (run,) = runs(text % "minibatch_size: 128")
    assert own(run).minibatch_size == 128
    # in the same file another algorithm takes the name for its own key
    (first, second) = runs(
        "training: {batch_size: 16}\n"
        "pipeline:\n"
        "  a: {execution: {algorithm: rl}}\n"
        "  b: {execution: {algorithm: lsr}}\n"
    )
    assert own(first).minibatch_size == 16
    assert second.config.training.arguments["per_device_train_batch_size"] == 16


def test_a_wrong_value_under_another_name_is_shown_where_it_stands(runs):
    with pytest.raises(ConfigError, match=r":3(.|\n)*") as error:
        runs(RL + "training:\n  batch_size: 0\n")
    assert "training" in str(error.value)


def test_the_width_may_stand_with_the_training(runs):
    (run,) = runs(RL + "training: {hidden_dim: 32}\n")
    assert run.config.model.hidden_size == 32


@pytest.mark.parametrize("name", ["CartPole-v1", "ALE/Pong-v5", "mine.tasks:Race", "mine.tasks:Race-v0", "A"])
def test_names_of_environments(runs, name):
    (run,) = runs(f"{RL}training: {{env_name: {name!r}}}\n")
    assert own(run).env_name == name


@pytest.mark.parametrize(
    ("training", "match"),
    [
        ("env_name: 'Cart Pole'", "names no environment; write an id of Gymnasium such as `CartPole-v1`"),
        ("env_name: ':Race'", "names no environment"),
        ("env_name: ''", "names no environment"),
        ("minibatch_size: 100", "1024 transitions, which do not divide into minibatches"),
        ("clip_range: 1.0", "clip_range"),
        ("gamma: 1.5", "gamma"),
        ("total_timesteps: 0", "total_timesteps"),
        ("total_timestep: 5", "did you mean 'total_timesteps'"),
        ("max_steps: 5", "unknown key 'max_steps'"),
        ("seed: 5", "set execution.seed"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_runs(runs, training, match):
    with pytest.raises(ConfigError, match=match):
        runs(f"{RL}training: {{{training}}}\n")


def test_planning_imports_neither_gymnasium_nor_torch():
    script = (
        "import sys\n"
        "from trainshed.config.load import check_source\n"
        "from trainshed.config.sweep import expand\n"
        "from trainshed.config.yaml_source import parse_yaml\n"
        f"expand(check_source(parse_yaml({RL!r}, 'rl.yaml'), environ={{}}))\n"
        "heavy = {'torch', 'gymnasium', 'torchrl', 'tensordict', 'numpy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rollouts_are_whole():
    assert RLParameters(total_timesteps=1).n_rollouts == 1
    assert RLParameters(total_timesteps=1024).n_rollouts == 1
    assert RLParameters(total_timesteps=1025).n_rollouts == 2
