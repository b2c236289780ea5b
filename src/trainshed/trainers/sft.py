"""Supervised fine-tuning: the model learns to continue as the examples do.

Loss, packing and masks are TRL's. Left out: everything around them (see `trl_family`).
"""

from typing import ClassVar

from trainshed.config.trainers.sft import SFTParameters
from trainshed.config.trl import TRLParameters
from trainshed.trainers.trl_family import TRLTrainer


class SFTTrainer(TRLTrainer):
    """Trains a causal language model on texts, conversations, or prompts with completions.

    The parameters are those of `TRLTrainer`.
    """

    algorithm: ClassVar[str] = "sft"
    trl_class: ClassVar[str] = "trl:SFTTrainer"
    arguments_class: ClassVar[str] = "trl:SFTConfig"
    parameters_class: ClassVar[type[TRLParameters]] = SFTParameters
