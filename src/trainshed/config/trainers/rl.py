"""Parameters of PPO on an environment (arXiv 1707.06347). Left out: the trainer, and PPO on text (`ppo`)."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import SETTING, Count, Share

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

#: ``CartPole-v1``, ``ALE/Pong-v5``, ``package.module:CartPole-v1``, ``package.module:Class``
_ENVIRONMENT = re.compile(r"([A-Za-z_][\w.]*:)?([\w.-]+/)?[\w.-]+")


def _environment(name: str) -> str:
    if not _ENVIRONMENT.fullmatch(name):
        raise ValueError(
            f"{name!r} names no environment; write an id of Gymnasium such as `CartPole-v1`, "
            "or `module:Class` of your own"
        )
    return name


class RLParameters(TrainerParameters):
    """What PPO on an environment takes; the size of the networks stands in ``model``."""

    arguments_table: ClassVar[str | None] = None
    argument_defaults: ClassVar[Mapping[str, Any]] = {}
    reads: ClassVar[frozenset[str]] = frozenset({"model.hidden_size", "model.num_layers"})
    aliases: ClassVar[Mapping[str, str]] = {
        "per_device_train_batch_size": "minibatch_size",
        "num_train_epochs": "n_epochs",
    }

    env_name: Annotated[str, AfterValidator(_environment)] = "CartPole-v1"
    """Environment: an id of Gymnasium (`CartPole-v1`; `module:Name-v0` imports the module that registers it),
    or `module:Class`, a class or function of your own that returns one, in a module that Python finds."""
    env_kwargs: dict[str, JsonValue] = Field(default={})
    """What the environment is made with; for an id also `max_episode_steps`."""
    total_timesteps: Count = 500_000
    """Steps in the environments, of all of them together; rounded up to whole rollouts."""
    n_envs: Count = 8
    """Copies of the environment, stepped in turn in one process."""
    n_steps: Count = 128
    """Steps of each environment in a rollout, which has `n_steps` times `n_envs` transitions."""
    n_epochs: Count = 4
    """How often a rollout is gone through."""
    minibatch_size: Count = 256
    """Transitions of an optimizer step; the rollout must divide into these."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation between the layers."""
    learning_rate: Positive = 3e-4
    """Learning rate of Adam (ε = 1e-5)."""
    lr_schedule: Literal["linear", "constant"] = "linear"
    """`linear`: from `learning_rate` in the first rollout to near 0 in the last."""
    gamma: Share = 0.99
    """Discount from step to step."""
    gae_lambda: Share = 0.95
    """Weight between one step (0) and the whole episode (1) in the advantages (arXiv 1506.02438)."""
    clip_range: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """How far an action's probability ratio may go from 1 before it teaches no more."""
    clip_range_value: NotNegative = 0.0
    """How far a value may go from what it was at the rollout; 0 leaves the clip out."""
    entropy_coef: NotNegative = 0.01
    """Weight of the entropy, which keeps the policy trying."""
    vf_coef: NotNegative = 0.5
    """Weight of the value loss, ½ (V − R)²."""
    max_grad_norm: NotNegative = 0.5
    """Norm that gradients are clipped to; 0 leaves the clip out."""
    normalize_advantage: bool = True
    """Give the advantages of a minibatch mean 0 and variance 1."""
    normalize_observations: bool = False
    """Give observations mean 0 and variance 1 by what was seen in the rollouts before, clipped to ±10."""
    target_kl: Positive | None = None
    """KL from the policy of the rollout, in nats, at which the rollout is left after a minibatch."""
    eval_interval: Annotated[int, Field(ge=0)] = 0
    """Rollouts from one evaluation to the next; 0 evaluates at the end only."""
    eval_episodes: Annotated[int, Field(ge=0)] = 20
    """Episodes of an evaluation, each with a seed of its own, always the same ones, in which the likeliest
    action is taken; 0 leaves evaluation out, as for an environment whose episodes may never end."""
    checkpoint_interval: Count = Field(default=50, json_schema_extra=SETTING)
    """Rollouts from one checkpoint to the next."""
    save_total_limit: Count = Field(default=2, json_schema_extra=SETTING)
    """Checkpoints that are kept, the newest."""

    @property
    def rollout_size(self) -> int:
        """Transitions of a rollout."""
        return self.n_steps * self.n_envs

    @property
    def n_rollouts(self) -> int:
        """Rollouts of the whole training."""
        return -(-self.total_timesteps // self.rollout_size)

    @model_validator(mode="after")
    def _minibatches(self) -> Self:
        if self.rollout_size % self.minibatch_size:
            raise ValueError(
                f"a rollout of `n_steps` {self.n_steps} times `n_envs` {self.n_envs} is {self.rollout_size} "
                f"transitions, which do not divide into minibatches of `minibatch_size` {self.minibatch_size}"
            )
        return self
