"""Exploratory preference optimisation: online DPO that is optimistic about what it has not tried.

Xie et al. 2024 (arXiv 2405.21046, algorithm 1): one completion comes from the policy and one from the
reference, rewards say which is preferred. Left out: rollouts on the loop (`online`) and the formula
(`trainshed.policy.preferences`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainshed.config.trainers.xpo import XPOParameters
from trainshed.models.seeds import derive_seed
from trainshed.policy.preferences import xpo_loss
from trainshed.policy.rollouts import TokenizedPrompt, trimmed
from trainshed.policy.sampling import Completions, joined_completions
from trainshed.trainers.online import OnlineTrainer


class XPOTrainer(OnlineTrainer):
    """Trains a policy by XPO; see `OnlineTrainer` for the arguments.

    Of two completions with the same score either may be the preferred one, by the seed.
    """

    algorithm: ClassVar[str] = "xpo"
    argument_defaults: ClassVar[Mapping[str, Any]] = XPOParameters.argument_defaults
    parameters_class = XPOParameters
    parameters: XPOParameters

    def make_rollout(self, rows: Sequence[TokenizedPrompt], seed: int) -> dict[str, Tensor]:
        """Complete prompts with policy and reference, and let the rewards choose.

        Returns
        -------
        dict
            Tensors ``[n, 2, ...]``: the policy's completion, then the reference's; ``wins`` ``[n]`` is true
            where the policy's is preferred.
        """
        own = self.complete(rows, derive_seed(seed, "policy"))
        explored = self.complete_with_reference(rows, derive_seed(seed, "reference"))
        judged = self.judge(rows, own)
        scores = self.scores(judged, own)
        others = self.scores(self.judge(rows, explored), explored)
        draw = torch.Generator().manual_seed(derive_seed(seed, "ties"))
        ties = torch.rand(len(rows), generator=draw) < 0.5
        wins = torch.where(scores == others, ties, scores > others)
        self.note_completions(judged, own, scores)
        self.measure("xpo/reference_score", others.mean().item())
        self.measure(
            "xpo/win_rate", ((scores > others).float() + 0.5 * (scores == others).float()).mean().item()
        )
        both = joined_completions([own, explored], self.sampling.pad_id)
        self._note_kl(own)
        return {
            "input_ids": _paired(both.input_ids),
            "attention_mask": _paired(both.attention_mask),
            "mask": _paired(both.mask),
            "ref_log_probs": _paired(self.reference_log_probs(both)),
            "wins": wins,
        }

    def _note_kl(self, done: Completions) -> None:
        self.measure("xpo/kl", self._sampled_kl(done))

    def cut(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return pairs as rows: the policy's of the first, the reference's of the first, and so on."""
        wins = batch.pop("wins")
        return {**trimmed({name: value.flatten(0, 1) for name, value in batch.items()}), "wins": wins}

    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the sum of the pairs' losses."""
        mask, wins = batch["mask"], batch["wins"]
        log_probs, _, _ = model(
            batch["input_ids"], batch["attention_mask"], mask.shape[1], self.sampling.temperature
        )
        totals = (log_probs * mask).sum(1).view(-1, 2)
        ratios = totals - (batch["ref_log_probs"] * mask).sum(1).view(-1, 2)
        chosen = torch.where(wins, ratios[:, 0], ratios[:, 1])
        rejected = torch.where(wins, ratios[:, 1], ratios[:, 0])
        own = self.parameters
        with torch.no_grad():
            self.measure("xpo/accuracy", (chosen > rejected).float().mean().item())
            self.measure("xpo/margin", own.beta * (chosen - rejected).mean().item())
        return xpo_loss(chosen, rejected, totals[:, 1], beta=own.beta, alpha=own.alpha).sum()

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the number of pairs."""
        return float(len(batch["wins"])) if "wins" in batch else 1.0


def _paired(value: Tensor) -> Tensor:
    """Return ``[2n, ...]``, all of one kind before the other, as ``[n, 2, ...]``."""
    return torch.stack(value.chunk(2), 1)
