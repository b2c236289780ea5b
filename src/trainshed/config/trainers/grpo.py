"""Parameters of group-relative policy optimization (arXiv 2402.03300). Left out: the trainer."""

from typing import ClassVar

from trainshed.config.trl import RewardedTRLParameters


class GRPOParameters(RewardedTRLParameters):
    """What GRPO takes besides the arguments of TRL's `GRPOConfig`."""

    arguments_table: ClassVar[str | None] = "trl.GRPOConfig"
