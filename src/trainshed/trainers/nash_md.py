"""Nash-MD: a policy that no other is preferred to, by playing against a mixture of itself and its reference.

Munos et al. 2023 (arXiv 2312.00886, section 7): a completion of the policy is compared with one of the
geometric mixture, and learns from the probability to be preferred. Left out: rollouts on the loop (`online`)
and the formulas (`trainshed.policy.preferences`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList

from trainshed.config.trainers.nash_md import NashMDParameters
from trainshed.models.seeds import derive_seed
from trainshed.policy.preferences import mixture_logits, nash_md_loss
from trainshed.policy.rollouts import TokenizedPrompt
from trainshed.trainers.online import OnlineTrainer


class NashMDTrainer(OnlineTrainer):
    """Trains a policy by Nash-MD-PG; see `OnlineTrainer` for the arguments.

    The gradient is that of the policy that sampled, so a rollout of one optimizer step
    (``rollout_batch_size`` equal to what a step sees) is exact, and a larger one a little stale.
    """

    algorithm: ClassVar[str] = "nash_md"
    argument_defaults: ClassVar[Mapping[str, Any]] = NashMDParameters.argument_defaults
    parameters_class = NashMDParameters
    parameters: NashMDParameters

    def make_rollout(self, rows: Sequence[TokenizedPrompt], seed: int) -> dict[str, Tensor]:
        """Complete prompts with policy and mixture, and compare.

        Returns
        -------
        dict
            The policy's completions, ``ref_log_probs`` ``[n, t]``, and ``wins`` ``[n]``, the probability that
            each is preferred to the mixture's.
        """
        done = self.complete(rows, derive_seed(seed, "policy"))
        against = self.complete(rows, derive_seed(seed, "mixture"), processors=self.mixture)
        judged = self.judge(rows, done)
        scores = self.scores(judged, done)
        others = self.scores(self.judge(rows, against), against)
        wins = self.preferred(scores, others)
        self.note_completions(judged, done, scores)
        self.measure("nash_md/mixture_score", others.mean().item())
        self.measure("nash_md/win_rate", wins.mean().item())
        self.measure("nash_md/kl", self._sampled_kl(done))
        return {
            "input_ids": done.input_ids,
            "attention_mask": done.attention_mask,
            "mask": done.mask,
            "ref_log_probs": self.reference_log_probs(done),
            "wins": wins,
        }

    def mixture(self, ids: Tensor, attention: Tensor) -> LogitsProcessorList:
        """Return what makes the mixture's logits of the policy's, for a batch of prompts."""
        return LogitsProcessorList([_Mixture(self, attention)])

    def preferred(self, scores: Tensor, others: Tensor) -> Tensor:
        """Return the probability ``[n]`` that the first of two completions is preferred."""
        own = self.parameters
        if own.preference == "hard":
            return (scores > others).float() + 0.5 * (scores == others).float()
        return torch.sigmoid((scores - others) / own.preference_temperature)

    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the sum of what has the completions' gradients; its value says nothing."""
        mask = batch["mask"]
        log_probs, entropy, _ = model(
            batch["input_ids"], batch["attention_mask"], mask.shape[1], self.sampling.temperature
        )
        self.measure("nash_md/entropy", ((entropy.detach() * mask).sum() / mask.sum()).item())
        return nash_md_loss(
            log_probs, batch["ref_log_probs"], mask, batch["wins"], tau=self.parameters.tau
        ).sum()

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the number of completions."""
        return float(len(batch["wins"])) if "wins" in batch else 1.0


class _Mixture(LogitsProcessor):
    """Mixes the reference into the policy's logits; it reads the whole text again for each token."""

    def __init__(self, trainer: NashMDTrainer, attention: Tensor) -> None:
        self.trainer, self.attention = trainer, attention

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the mixture's logits ``[n, v]`` of the next token."""
        new = input_ids.shape[1] - self.attention.shape[1]
        attention = torch.nn.functional.pad(self.attention, (0, new), value=1)
        ref = self.trainer.next_reference_logits(input_ids, attention)
        return mixture_logits(scores, ref, weight=self.trainer.parameters.mixture_weight)
