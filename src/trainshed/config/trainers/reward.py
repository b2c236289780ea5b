"""Parameters of reward models: a number for how good an answer is. Left out: the trainer."""

from typing import ClassVar

from trainshed.config.trl import TRLParameters


class RewardParameters(TRLParameters):
    """What reward takes besides the arguments of TRL's `RewardConfig`."""

    arguments_table: ClassVar[str | None] = "trl.RewardConfig"
