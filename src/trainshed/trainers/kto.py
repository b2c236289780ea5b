"""Kahneman-Tversky optimization (arXiv 2402.01306): preference learning from single answers, good or bad.

The loss is TRL's. Left out: everything around it (see `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.kto import KTOParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_family import ReferencedTrainer


class KTOTrainer(ReferencedTrainer):
    """Trains a causal language model on answers with labels; see `ReferencedTrainer` for the parameters."""

    algorithm: ClassVar[str] = "kto"
    trl_class: ClassVar[str] = "trl:KTOTrainer"
    arguments_class: ClassVar[str] = "trl:KTOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = KTOParameters
