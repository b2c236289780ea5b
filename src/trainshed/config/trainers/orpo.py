"""Parameters of odds-ratio preference optimization (arXiv 2403.07691). Left out: the trainer."""

from typing import ClassVar

from trainshed.config.trl import TRLParameters


class ORPOParameters(TRLParameters):
    """What ORPO takes besides the arguments of TRL's `ORPOConfig`."""

    arguments_table: ClassVar[str | None] = "trl.experimental.orpo.ORPOConfig"
