"""PPO on text: a policy learns from the rewards of its own completions, held near a reference.

Schulman et al. 2017 (arXiv 1707.06347) with the token rewards of Ziegler et al. 2019 (arXiv 1909.08593): the
score at a completion's last token, ``−β·KL`` at each. Left out: rollouts on the loop (`online`) and the
formulas (`trainshed.policy`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainshed.config.trainers.ppo import PPOParameters
from trainshed.policy.advantages import (
    explained_variance,
    generalized_advantages,
    masked_mean,
    token_rewards,
    whiten,
)
from trainshed.policy.kl import adapted_coefficient, categorical_kl, kl_estimate
from trainshed.policy.losses import clipped_policy_loss, clipped_value_loss, token_entropy, token_log_probs
from trainshed.policy.model import ActorCritic
from trainshed.policy.rollouts import TokenizedPrompt
from trainshed.policy.sampling import Completions
from trainshed.trainers.loop import Loop
from trainshed.trainers.online import OnlineTrainer


class PPOTrainer(OnlineTrainer):
    """Trains a policy and its value function by PPO; see `OnlineTrainer` for the arguments."""

    algorithm: ClassVar[str] = "ppo"
    argument_defaults: ClassVar[Mapping[str, Any]] = PPOParameters.argument_defaults
    parameters_class = PPOParameters
    parameters: PPOParameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._kl_coef = 0.0
        self._moved = [0.0, 0.0]
        super().__init__(*args, **kwargs)

    @property
    def passes(self) -> int:  # type: ignore[override]
        """How often each rollout is gone through."""
        return self.parameters.ppo_epochs

    def make_module(self) -> nn.Module:
        """Return the policy with its value head."""
        return ActorCritic(self.model, self.parameters.value)

    def before_training(self, loop: Loop) -> None:
        """Start with the configured coefficient of the KL."""
        super().before_training(loop)
        self._kl_coef, self._moved = self.parameters.kl_coef, [0.0, 0.0]

    def kept(self) -> dict[str, float]:
        """Return the KL's coefficient, and how far the policy has moved in the latest step."""
        return {"kl_coef": self._kl_coef, "moved": self._moved[0], "moved_tokens": self._moved[1]}

    def restore_kept(self, values: Mapping[str, float]) -> None:
        """Take what `kept` returned."""
        self._kl_coef = values["kl_coef"]
        self._moved = [values["moved"], values["moved_tokens"]]

    def leaves_rollout(self) -> bool:
        """Return whether the latest step found the policy too far from the one that sampled."""
        total, tokens = self._moved
        self._moved = [0.0, 0.0]
        target = self.parameters.target_kl
        return target is not None and tokens > 0 and total / tokens > target

    # -- a rollout -------------------------------------------------------------------------------------

    def make_rollout(self, rows: Sequence[TokenizedPrompt], seed: int) -> dict[str, Tensor]:
        """Complete prompts, judge the completions, and say how good each token was."""
        own = self.parameters
        done = self.complete(rows, seed)
        judged = self.judge(rows, done)
        scores = self.scores(judged, done).to(done.mask.device)
        found = self._scored(done)
        mask = done.mask
        penalty = kl_estimate(found["log_probs"], found["ref_log_probs"], own.kl_estimator)
        rewards = token_rewards(scores, penalty, mask, self._kl_coef)
        reward = rewards.sum(1).mean().item()
        if own.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        values = found["values"] * mask
        advantages, returns = generalized_advantages(
            rewards, values, mask, gamma=own.gamma, lam=own.gae_lambda
        )
        self.note_completions(judged, done, scores)
        self.measure("ppo/reward", reward)
        self._note(found, mask, returns)
        if own.whiten_advantages:
            advantages = whiten(advantages, mask)
        return {
            "input_ids": done.input_ids,
            "attention_mask": done.attention_mask,
            "mask": mask,
            "log_probs": found["log_probs"],
            "values": values,
            "advantages": advantages,
            "returns": returns,
        }

    def _scored(self, done: Completions) -> dict[str, Tensor]:
        """Return for each token its log-probabilities, its value, and of its distribution entropy and KL."""
        length, heat, size = (
            done.mask.shape[1],
            self.sampling.temperature,
            self.parameters.generation_batch_size,
        )
        parts: dict[str, list[Tensor]] = {}
        policy: Any = self.module
        for start in range(0, len(done.ended), size):
            ids, attention = done.input_ids[start : start + size], done.attention_mask[start : start + size]
            logits, values = policy.logits_and_values(ids, attention, length)
            ref_logits = self.reference_logits(ids, attention, length)
            tokens = ids[:, -length:]
            found = {
                "log_probs": token_log_probs(logits, tokens, temperature=heat),
                "ref_log_probs": token_log_probs(ref_logits, tokens, temperature=heat),
                "entropy": token_entropy(logits, temperature=heat),
                "kl": categorical_kl(logits / heat, ref_logits / heat),
                "values": values,
            }
            for name, value in found.items():
                parts.setdefault(name, []).append(value)
        return {name: torch.cat(values) for name, values in parts.items()}

    def _note(self, found: Mapping[str, Tensor], mask: Tensor, returns: Tensor) -> None:
        """Measure the rollout, and move the KL's coefficient towards its target."""
        sampled = ((found["log_probs"] - found["ref_log_probs"]) * mask).sum(1)
        tokens = mask.sum().item()
        kl = sampled.mean().item()
        self.measure("ppo/kl", kl)
        self.measure("ppo/kl_per_token", sampled.sum().item() / tokens)
        self.measure("ppo/kl_full", (found["kl"] * mask).sum(1).mean().item())
        self.measure("ppo/kl_coef", self._kl_coef)
        self.measure("ppo/entropy", masked_mean(found["entropy"], mask).item())
        self.measure("ppo/explained_variance", explained_variance(found["values"], returns, mask).item())
        own = self.parameters
        if own.kl_target is not None:
            self._kl_coef = adapted_coefficient(self._kl_coef, kl, target=own.kl_target, gain=own.kl_gain)

    # -- the loss --------------------------------------------------------------------------------------

    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the sum over tokens of policy loss, value loss and entropy (arXiv 1707.06347, eq. 9)."""
        own, mask = self.parameters, batch["mask"]
        log_probs, entropy, values = model(
            batch["input_ids"], batch["attention_mask"], mask.shape[1], self.sampling.temperature
        )
        policy_loss, clipped = clipped_policy_loss(
            log_probs,
            batch["log_probs"],
            batch["advantages"],
            clip_low=own.clip_range,
            clip_high=own.clip_range if own.clip_range_high is None else own.clip_range_high,
        )
        value_loss, value_clipped = clipped_value_loss(
            values, batch["values"], batch["returns"], clip=own.clip_range_value or None
        )
        loss = policy_loss + own.vf_coef * value_loss - own.entropy_coef * entropy
        with torch.no_grad():
            # of the policy that sampled: its tokens, so the ratio is turned round
            moved = kl_estimate(batch["log_probs"], log_probs, "k3")
            told = {
                "ppo/policy_loss": policy_loss,
                "ppo/value_loss": value_loss,
                "ppo/clip_fraction": clipped.float(),
                "ppo/value_clip_fraction": value_clipped.float(),
                "ppo/approx_kl": moved,
            }
            sums = torch.stack([(value * mask).sum() for value in told.values()]).tolist()
        tokens = float(mask.sum())
        for name, value in zip(told, sums, strict=True):
            self.measure(name, value / tokens)
        self._moved[0] += sums[-1]
        self._moved[1] += tokens
        return (loss * mask).sum()
