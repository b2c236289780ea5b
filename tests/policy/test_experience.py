"""Advantages by hand, through an end and a cut, and TorchRL's loss against our own formulas."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch

from tiny_environments import Corridor
from trainshed.config.trainers.rl import RLParameters
from trainshed.policy.control import Policy
from trainshed.policy.environments import Environments, make_environment
from trainshed.policy.experience import Experience, advantages, clipped_loss, collect, prepared
from trainshed.policy.losses import clipped_policy_loss, clipped_value_loss

SIZES = {"n_envs": 2, "n_steps": 8, "minibatch_size": 16}


def experience_of(rewards, terminated, truncated):
    """Return one environment's experience."""
    made = {
        "rewards": torch.tensor(rewards)[:, None],
        "terminated": torch.tensor(terminated)[:, None],
        "truncated": torch.tensor(truncated)[:, None],
    }
    empty = torch.zeros(len(rewards), 1, 1)
    return Experience(observations=empty, following=empty, actions=empty, ended=(), **made)


def test_advantages_by_hand():
    """γ = λ = ½. Steps: one inside, one that ends; one inside, one that is cut; one inside, and no more."""
    no, yes = False, True
    experience = experience_of([1.0, 2.0, 3.0, 4.0, 5.0], [no, yes, no, no, no], [no, no, no, yes, no])
    values = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])[:, None]
    following = torch.tensor([20.0, 1000.0, 40.0, 60.0, 80.0])[:, None]
    found, returns = advantages(experience, values, following, gamma=0.5, lam=0.5)
    # what follows an end is worth nothing, whatever its value; what follows a cut is worth its value
    ended = 2.0 - 20.0
    before_end = 1.0 + 0.5 * 20.0 - 10.0 + 0.25 * ended
    cut = 4.0 + 0.5 * 60.0 - 40.0
    before_cut = 3.0 + 0.5 * 40.0 - 30.0 + 0.25 * cut
    last = 5.0 + 0.5 * 80.0 - 50.0
    expected = torch.tensor([before_end, ended, before_cut, cut, last])
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(returns[:, 0], expected + values[:, 0])


def test_with_lambda_1_returns_are_discounted_sums():
    rewards = [1.0, 2.0, 3.0]
    experience = experience_of(rewards, [False, False, True], [False] * 3)
    values = torch.rand(3, 1)
    following = torch.cat([values[1:], torch.full((1, 1), 9.0)])
    _, returns = advantages(experience, values, following, gamma=0.9, lam=1.0)
    assert returns[0, 0] == pytest.approx(1.0 + 0.9 * 2.0 + 0.81 * 3.0)


def test_what_is_collected_is_in_order():
    environments = Environments(lambda: Corridor(cut=3), 2, lambda index, number: number)
    environments.begin()
    policy = Policy(environments.description, environments.actions)
    found = collect(policy, environments, 4, torch.Generator().manual_seed(0))
    assert found.observations[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 0.0]
    assert found.following[:, 1, 0].tolist() == [1.0, 2.0, 3.0, 1.0]
    assert found.rewards.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [1.0, 1.0]]
    assert found.truncated[:, 0].tolist() == [False, False, True, False]
    assert not found.terminated.any()
    assert found.actions.shape == (4, 2, 2)
    assert [(episode.total, episode.length) for episode in found.ended] == [(6.0, 3)] * 2


@pytest.fixture(params=["CartPole-v1", "Pendulum-v1"])
def rolled_out(request):
    """Return a policy, parameters, its loss, and a batch of its own."""
    own = RLParameters(**SIZES, entropy_coef=0.03, vf_coef=0.7, clip_range=0.1, normalize_advantage=False)
    make = functools.partial(make_environment, request.param)
    environments = Environments(make, 2, lambda index, number: 10 * index + number)
    environments.begin()
    policy = Policy(environments.description, environments.actions, seed=3)
    loss = clipped_loss(policy, own)
    experience = collect(policy, environments, 8, torch.Generator().manual_seed(0))
    yield policy, own, loss, prepared(policy, experience, loss, own)
    environments.close()


def moved(policy):
    """Move the weights, so that ratios are clipped."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)


@pytest.mark.parametrize("clip", [0.0, 0.02])
def test_the_loss_is_that_of_our_own_formulas(rolled_out, clip):
    policy, own, _, batch = rolled_out
    own = own.model_copy(update={"clip_range_value": clip})
    loss = clipped_loss(policy, own)
    keys = loss.tensor_keys
    moved(policy)
    found = loss(batch)
    distribution = policy.actor.distribution(batch["observation"])
    advantage = batch[keys.advantage][:, 0]
    policy_loss, clipped = clipped_policy_loss(
        distribution.log_prob(batch[keys.action]),
        batch[keys.sample_log_prob],
        advantage,
        clip_low=0.1,
        clip_high=0.1,
    )
    value_loss, _ = clipped_value_loss(
        policy.critic(batch["observation"]), batch[keys.value], batch[keys.value_target], clip=clip or None
    )
    assert clipped.any()
    assert found["loss_objective"].item() == pytest.approx(policy_loss.mean().item(), rel=1e-5)
    assert found["loss_critic"].item() == pytest.approx(0.7 * value_loss.mean().item(), rel=1e-5)
    entropy = distribution.entropy().mean().item()
    assert found["loss_entropy"].item() == pytest.approx(-0.03 * entropy, rel=1e-5)
    ours = policy_loss.mean() + 0.7 * value_loss.mean() - 0.03 * distribution.entropy().mean()
    theirs = found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]
    wanted = torch.autograd.grad(ours, list(policy.parameters()))
    for one, other in zip(torch.autograd.grad(theirs, list(policy.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_policy_that_rolled_out_has_ratio_1(rolled_out):
    _, _, loss, batch = rolled_out
    found = loss(batch)
    assert found["mean_ratio"].item() == pytest.approx(1.0, abs=1e-6)
    assert found["kl_approx"].item() == pytest.approx(0.0, abs=1e-6)
    assert found["clip_fraction"].item() == 0.0
    assert len(batch) == 16


def test_the_loss_learns_with_the_policy_itself(rolled_out):
    policy, _, loss, _ = rolled_out
    assert {id(parameter) for parameter in loss.parameters()} == {id(p) for p in policy.parameters()}


def test_the_approximate_kl_is_k3_of_the_ratios(rolled_out):
    policy, _, loss, batch = rolled_out
    moved(policy)
    found = loss(batch)
    distribution = policy.actor.distribution(batch["observation"])
    log_ratio = (
        distribution.log_prob(batch[loss.tensor_keys.action]) - batch[loss.tensor_keys.sample_log_prob]
    )
    k3 = (log_ratio.exp() - 1.0 - log_ratio).mean().item()
    assert found["mean_ratio"].item() - 1.0 + found["kl_approx"].item() == pytest.approx(k3, rel=1e-3)
    assert k3 > 0


def test_values_of_what_followed_are_those_of_the_end_of_the_episode():
    """An untrained critic tells the last observation of a cut episode from the first of the next."""
    own = RLParameters(n_envs=1, n_steps=4, minibatch_size=4, gamma=1.0, gae_lambda=0.0)
    environments = Environments(lambda: Corridor(cut=2), 1, lambda index, number: number)
    environments.begin()
    policy = Policy(environments.description, environments.actions, seed=3)
    loss = clipped_loss(policy, own)
    experience = collect(policy, environments, 4, torch.Generator().manual_seed(0))
    batch = prepared(policy, experience, loss, own)
    with torch.no_grad():
        value = [policy.critic(torch.tensor([[float(place)]])).item() for place in range(3)]
    expected = [1.0 + value[1], 2.0 + value[2]] * 2
    np.testing.assert_allclose(batch[loss.tensor_keys.value_target][:, 0], expected, rtol=1e-5)


def test_importing_torchrl_changes_no_start_method():
    script = (
        "import multiprocessing, sys\n"
        "from trainshed.config.trainers.rl import RLParameters\n"
        "from trainshed.policy.control import Policy\n"
        "from trainshed.policy.experience import clipped_loss\n"
        "from trainshed.policy.spaces import Actions\n"
        "clipped_loss(Policy({'kind': 'numbers', 'shape': [2]}, Actions('discrete', 2)), RLParameters())\n"
        "assert 'torchrl' in sys.modules\n"
        "print(multiprocessing.get_start_method(allow_none=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "None"
