"""From steps in environments to a batch that PPO learns from, and PPO's loss on it: TorchRL's.

Of TorchRL (Bou et al. 2023, arXiv 2306.00577) this takes the advantages and the loss. Its collector and its
environments are left out: they hold no state that a checkpoint could keep, so a training that was killed
would go on with other episodes.
"""

import contextlib
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainshed.config.trainers.rl import RLParameters
from trainshed.errors import require_extra
from trainshed.policy.control import Policy, categorical, diagonal_normal
from trainshed.policy.environments import Environments, Episode


@dataclass(frozen=True)
class Experience:
    """``t`` steps of ``n`` environments.

    Parameters
    ----------
    observations, following
        ``[t, n, d]``: what each action was taken on, and what it led to, which where an episode ended is its
        last observation.
    actions
        ``[t, n]`` choices or ``[t, n, k]`` numbers.
    rewards
        ``[t, n]``.
    terminated, truncated
        ``[t, n]``; see `trainshed.policy.environments.Step`.
    ended
        The episodes that ended.
    """

    observations: Tensor
    following: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    ended: tuple[Episode, ...]


def collect(policy: Policy, environments: Environments, steps: int, generator: torch.Generator) -> Experience:
    """Step the environments with actions drawn from a policy.

    Parameters
    ----------
    policy
        Who acts.
    environments
        Where; they go on from where they are.
    steps
        Of each of them.
    generator
        What actions are drawn with, on the policy's device.
    """
    rows: dict[str, list[np.ndarray]] = {}
    ended: list[Episode] = []
    for _ in range(steps):
        before = environments.observations.copy()
        actions = policy.choose(before, greedy=False, generator=generator)
        step = environments.step(actions)
        found = {
            "observations": before,
            "following": step.following,
            "actions": actions,
            "rewards": step.rewards,
            "terminated": step.terminated,
            "truncated": step.truncated,
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
        ended += step.ended
    device = next(policy.parameters()).device
    tensors = {name: torch.from_numpy(np.stack(values)).to(device) for name, values in rows.items()}
    return Experience(**tensors, ended=tuple(ended))


def advantages(
    experience: Experience, values: Tensor, following: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns (arXiv 1506.02438, eq. 16), by TorchRL.

    ::

        δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t)
        A_t = δ_t + γλ (1 − terminated_t) (1 − truncated_t) A_{t+1}         R_t = A_t + V(s_t)

    An episode that was cut off still has the value of where it was cut.

    Parameters
    ----------
    experience
        ``t`` steps of ``n`` environments.
    values, following
        ``[t, n]``: values of the observations, and of those that followed.
    gamma, lam
        Discount γ and weight λ.

    Returns
    -------
    tuple of Tensor
        Both ``[t, n]``.
    """
    with _own_start_method():
        from torchrl.objectives.value.functional import generalized_advantage_estimate

    done = experience.terminated | experience.truncated
    # the library has the time in the dimension before the last
    found = generalized_advantage_estimate(
        gamma,
        lam,
        *(part.T[..., None] for part in (values, following, experience.rewards, done, experience.terminated)),
    )
    advantage, returns = (part[..., 0].T for part in found)
    return advantage, returns


def prepared(policy: Policy, experience: Experience, loss: Any, own: RLParameters) -> Any:
    """Return the transitions of an experience as a flat `TensorDict`, as ``loss`` takes them."""
    from tensordict import TensorDict

    features = policy.features(experience.observations)
    flat, actions = features.flatten(0, 1), experience.actions.flatten(0, 1)
    with torch.no_grad():
        values = policy.critic(features)[..., 0]
        following = policy.critic(policy.features(experience.following))[..., 0]
        log_probs = policy.actor.distribution(flat).log_prob(actions)
    advantage, returns = advantages(experience, values, following, gamma=own.gamma, lam=own.gae_lambda)
    keys = loss.tensor_keys
    return TensorDict(
        {
            "observation": flat,
            keys.action: actions,
            keys.sample_log_prob: log_probs,
            keys.advantage: advantage.reshape(-1, 1),
            keys.value_target: returns.reshape(-1, 1),
            keys.value: values.reshape(-1, 1),
        },
        batch_size=[len(flat)],
    )


def clipped_loss(policy: Policy, own: RLParameters) -> Any:
    """Return TorchRL's loss of PPO on a policy's own weights (arXiv 1707.06347, eq. 9).

    ::

        L = − min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + c_v ½ (V − R)² − c_e H         ρ = π / π_old

    Parameters
    ----------
    policy
        Its actor and critic are not copied.
    own
        ``clip_range`` ε, ``vf_coef`` c_v, ``entropy_coef`` c_e, and whether values are clipped and advantages
        normalised.

    Returns
    -------
    torchrl.objectives.ClipPPOLoss
        From a batch of `prepared` to ``loss_objective``, ``loss_critic``, ``loss_entropy`` and what is
        reported.
    """
    require_extra("torchrl", "rl")
    from tensordict.nn import (
        ProbabilisticTensorDictModule,
        ProbabilisticTensorDictSequential,
        TensorDictModule,
    )

    with _own_start_method():
        from torchrl.objectives import ClipPPOLoss

    discrete = policy.actions.kind == "discrete"
    told = ["logits"] if discrete else ["loc", "scale"]
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(policy.actor, in_keys=["observation"], out_keys=told),
        ProbabilisticTensorDictModule(
            in_keys=told,
            out_keys=["action"],
            distribution_class=categorical if discrete else diagonal_normal,
            return_log_prob=True,
        ),
    )
    critic = TensorDictModule(policy.critic, in_keys=["observation"], out_keys=["state_value"])
    return ClipPPOLoss(
        actor,
        critic,
        functional=False,
        clip_epsilon=own.clip_range,
        clip_value=own.clip_range_value or None,
        entropy_coeff=own.entropy_coef,
        # the library's squared error has no ½
        critic_coeff=own.vf_coef / 2.0,
        loss_critic_type="l2",
        normalize_advantage=own.normalize_advantage,
        log_explained_variance=False,
    )


@contextlib.contextmanager
def _own_start_method() -> Iterator[None]:
    """Take back that TorchRL, when it is imported, sets how all processes of this program are started."""
    before = multiprocessing.get_start_method(allow_none=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)
