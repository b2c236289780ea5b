"""Odds-ratio preference optimization (arXiv 2403.07691): supervised and preference learning in one, without a
reference model.

The loss is that of TRL's experimental trainer. Left out: everything around it (see `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.orpo import ORPOParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_family import TRLTrainer


class ORPOTrainer(TRLTrainer):
    """Trains a causal language model on preference pairs; see `TRLTrainer` for the parameters."""

    algorithm: ClassVar[str] = "orpo"
    trl_class: ClassVar[str] = "trl.experimental.orpo:ORPOTrainer"
    arguments_class: ClassVar[str] = "trl.experimental.orpo:ORPOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = ORPOParameters
