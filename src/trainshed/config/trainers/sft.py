"""Parameters of supervised fine-tuning. Left out: the trainer."""

from typing import ClassVar

from trainshed.config.trl import TRLParameters


class SFTParameters(TRLParameters):
    """What SFT takes besides the arguments of TRL's `SFTConfig`."""

    arguments_table: ClassVar[str | None] = "trl.SFTConfig"
