"""Parameters of REINFORCE with a leave-one-out baseline (arXiv 2402.14740). Left out: the trainer."""

from typing import ClassVar

from trainshed.config.trl import RewardedTRLParameters


class RLOOParameters(RewardedTRLParameters):
    """What RLOO takes besides the arguments of TRL's `RLOOConfig`."""

    arguments_table: ClassVar[str | None] = "trl.RLOOConfig"
