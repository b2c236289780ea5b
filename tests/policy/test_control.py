"""Policies: what they choose, how they see observations, and that they are the same when loaded."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces

from trainshed.errors import ModelError
from trainshed.policy.control import Policy
from trainshed.policy.spaces import Actions, describe_observations

NUMBERS = describe_observations(spaces.Box(-np.inf, np.inf, (3,)))
CHOICES = Actions.from_space(spaces.Discrete(4, start=2))
BOX = Actions.from_space(spaces.Box(-2.0, 2.0, (2,)))


def observations(count=500, seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, size=(count, 3)).astype(np.float32)


def opinionated(actions=CHOICES, **more):
    """Return a policy that does not begin near uniform."""
    policy = Policy(NUMBERS, actions, seed=1, **more)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.nn.init.orthogonal_(policy.actor.body[-1].weight, 3.0)
    return policy


def test_it_begins_near_uniform_and_the_same_for_a_seed():
    policy = Policy(NUMBERS, CHOICES, seed=1)
    features = torch.from_numpy(observations())
    probabilities = policy.actor.distribution(features).probs
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 0.25), atol=0.02, rtol=0)
    before = torch.random.get_rng_state()
    same, other = Policy(NUMBERS, CHOICES, seed=1), Policy(NUMBERS, CHOICES, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(same.critic(features), policy.critic(features))
    assert not torch.equal(other.critic(features), policy.critic(features))


def test_actions_are_drawn_as_likely_as_they_are():
    policy = opinionated()
    row = np.repeat(observations(1), 20_000, axis=0)
    drawn = policy.choose(row, greedy=False, generator=torch.Generator().manual_seed(0))
    wanted = policy.actor.distribution(torch.from_numpy(row[:1])).probs[0]
    assert wanted.max() > 0.4
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, wanted.detach().numpy(), atol=0.02)
    assert (policy.choose(row) == wanted.argmax().item()).all()


def test_numbers_are_drawn_as_likely_as_they_are():
    policy = opinionated(BOX)
    with torch.no_grad():
        policy.actor.log_scale.copy_(torch.tensor([0.0, -1.0]))
    row = np.repeat(observations(1), 20_000, axis=0)
    drawn = policy.choose(row, greedy=False, generator=torch.Generator().manual_seed(0))
    loc, scale = policy.actor(torch.from_numpy(row[:1]))
    np.testing.assert_allclose(drawn.mean(0), loc[0].detach(), atol=0.03)
    np.testing.assert_allclose(drawn.std(0), scale[0].detach(), rtol=0.03)
    torch.testing.assert_close(scale[0], torch.tensor([1.0, np.exp(-1.0)], dtype=torch.float32))
    np.testing.assert_array_equal(policy.choose(row[:1])[0], loc[0].detach().numpy())


def test_drawing_asks_no_other_generator():
    policies = opinionated(), opinionated(BOX)
    before = torch.random.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    for policy in policies:
        policy.choose(observations(4), greedy=False, generator=generator)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_action_is_one_of_the_environment():
    policy = opinionated()
    row = observations(1)[0]
    assert policy.act(row) == 2 + int(policy.choose(row[None])[0])
    assert policy.act(row.astype(np.float64).tolist()) == policy.act(row)
    generator = torch.Generator().manual_seed(0)
    assert {policy.act(row, greedy=False, generator=generator) for _ in range(200)} == {2, 3, 4, 5}
    action = opinionated(BOX).act(row)
    assert spaces.Box(-2.0, 2.0, (2,)).contains(action)


def test_observations_get_mean_0_and_variance_1_of_all_that_was_seen():
    rows = observations(600)
    policy = Policy(NUMBERS, CHOICES, normalize=True)
    torch.testing.assert_close(policy.features(torch.from_numpy(rows)), torch.from_numpy(rows))
    for part in np.split(rows, [100, 101, 350]):
        policy.observe(torch.from_numpy(part))
    np.testing.assert_allclose(policy.mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(policy.variance, rows.var(0), rtol=1e-4)
    assert policy.count == 600
    seen = policy.features(torch.from_numpy(rows))
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.var(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert policy.features(torch.full((1, 3), 1e9)).max() == 10.0


@pytest.mark.parametrize("actions", [CHOICES, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_saved_policy_acts_the_same(tmp_path, actions, normalize):
    policy = opinionated(actions, hidden_size=8, num_layers=3, activation="relu", normalize=normalize)
    policy.observe(torch.from_numpy(observations(seed=5)))
    policy.save(tmp_path, environment="Mine-v0")
    loaded = Policy.load(tmp_path)
    rows = observations(50)
    np.testing.assert_array_equal(loaded.choose(rows), policy.choose(rows))
    assert json.loads((tmp_path / "config.json").read_text())["environment"] == "Mine-v0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_loading_and_acting_needs_neither_gymnasium_nor_torchrl(tmp_path):
    opinionated().save(tmp_path)
    script = (
        "import sys\n"
        "sys.modules['gymnasium'] = sys.modules['torchrl'] = sys.modules['tensordict'] = None\n"
        "from trainshed.policy.control import Policy\n"
        f"print(Policy.load({str(tmp_path)!r}).act([0.1, 0.2, 0.3]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == opinionated().act([0.1, 0.2, 0.3])


def test_what_is_no_policy_is_said(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        Policy.load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ModelError, match="no policy that this version reads"):
        Policy.load(tmp_path)
    opinionated().save(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        Policy.load(tmp_path)
