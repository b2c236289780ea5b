"""REINFORCE with a leave-one-out baseline (arXiv 2402.14740): each completion against the mean of the others.

Generation and loss are TRL's. Left out: everything around them (see `trl_online`, `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.rloo import RLOOParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_online import RewardedTrainer


class RLOOTrainer(RewardedTrainer):
    """Trains a policy on prompts and rewards; see `RewardedTrainer` for the parameters."""

    algorithm: ClassVar[str] = "rloo"
    trl_class: ClassVar[str] = "trl:RLOOTrainer"
    arguments_class: ClassVar[str] = "trl:RLOOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = RLOOParameters
