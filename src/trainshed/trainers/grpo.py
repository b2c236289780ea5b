"""Group-relative policy optimization (arXiv 2402.03300): the completions of a prompt beside each other.

Generation and loss are TRL's. Left out: everything around them (see `trl_online`, `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.grpo import GRPOParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_online import RewardedTrainer


class GRPOTrainer(RewardedTrainer):
    """Trains a policy on prompts and rewards; see `RewardedTrainer` for the parameters."""

    algorithm: ClassVar[str] = "grpo"
    trl_class: ClassVar[str] = "trl:GRPOTrainer"
    arguments_class: ClassVar[str] = "trl:GRPOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = GRPOParameters
