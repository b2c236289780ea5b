"""Direct preference optimization (arXiv 2305.18290), with all of TRL's loss types, alone or combined.

The losses are TRL's. Left out: everything around them (see `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.dpo import DPOParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_family import ReferencedTrainer


class DPOTrainer(ReferencedTrainer):
    """Trains a causal language model on preference pairs; see `ReferencedTrainer` for the parameters."""

    algorithm: ClassVar[str] = "dpo"
    trl_class: ClassVar[str] = "trl:DPOTrainer"
    arguments_class: ClassVar[str] = "trl:DPOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = DPOParameters
