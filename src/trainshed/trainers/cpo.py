"""Contrastive preference optimization (arXiv 2401.08417), and SimPO (2405.14734) by ``loss_type: simpo``.

The losses are those of TRL's experimental trainer. Left out: everything around them (see `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.cpo import CPOParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_family import TRLTrainer


class CPOTrainer(TRLTrainer):
    """Trains a causal language model on preference pairs; see `TRLTrainer` for the parameters."""

    algorithm: ClassVar[str] = "cpo"
    trl_class: ClassVar[str] = "trl.experimental.cpo:CPOTrainer"
    arguments_class: ClassVar[str] = "trl.experimental.cpo:CPOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = CPOParameters
