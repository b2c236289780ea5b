"""Parameters of contrastive preference optimization (arXiv 2401.08417) and SimPO (2405.14734).

Left out: the trainer.
"""

from typing import ClassVar

from trainshed.config.trl import TRLParameters


class CPOParameters(TRLParameters):
    """What CPO takes besides the arguments of TRL's `CPOConfig`."""

    arguments_table: ClassVar[str | None] = "trl.experimental.cpo.CPOConfig"
