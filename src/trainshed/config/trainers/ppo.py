"""Parameters of PPO on text (arXiv 1707.06347, 1909.08593). Left out: the trainer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainshed.config.online import NotNegative, OnlineParameters
from trainshed.config.schema import Count, Share

Positive = Annotated[float, Field(gt=0)]


class PPOParameters(OnlineParameters):
    """What PPO takes besides the arguments of `transformers.TrainingArguments`."""

    ppo_epochs: Count = 4
    """How often a rollout is gone through."""
    clip_range: Positive = 0.2
    """How far a token's probability ratio may go down, and up unless `clip_range_high` is set."""
    clip_range_high: Positive | None = None
    """How far the ratio may go up (arXiv 2503.14476, section 3.1, sets it higher)."""
    clip_range_value: NotNegative = 0.2
    """How far a value may go from what it was at the rollout; 0 leaves the clip out."""
    vf_coef: NotNegative = 0.5
    """Weight of the value loss."""
    entropy_coef: NotNegative = 0.0
    """Weight of the entropy, which keeps the policy from narrowing."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount from token to token."""
    gae_lambda: Share = 0.95
    """Weight between one step (0) and the whole completion (1) in the advantages."""
    whiten_advantages: bool = True
    """Give the advantages of a rollout mean 0 and variance 1."""
    whiten_rewards: bool = False
    """Give the tokens' rewards of a rollout variance 1."""
    value: Literal["shared", "detached", "separate"] = "shared"
    """Value head: on the policy's last hidden state, the same without a gradient into the policy, or a second
    model that begins as a copy of the policy's body."""
    kl_coef: NotNegative = 0.05
    """Weight β of the KL to the reference, in each token's reward."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimate of the KL in the reward (Schulman 2020); the reported KL is always the plain one."""
    kl_target: Positive | None = None
    """KL in nats a completion at which β is to hold the policy, by changing after each rollout (arXiv
    1909.08593, section 2.2); null keeps β."""
    kl_gain: Positive = 0.1
    """How fast β changes, with `kl_target`."""
    target_kl: Positive | None = None
    """KL from the policy of the rollout, in nats a token, at which the rollout is left and a new one made."""

    @model_validator(mode="after")
    def _clip_and_target(self) -> Self:
        if self.clip_range >= 1:
            raise ValueError(f"`clip_range` {self.clip_range} must be below 1: a ratio cannot fall below 0")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("`kl_target` changes `kl_coef` by factors, so it cannot start at 0")
        return self
