"""Reward models: a language model with one number as its output, learnt from preference pairs.

Bradley and Terry (1952), as in InstructGPT (arXiv 2203.02155, equation 1). The loss is TRL's. Left out:
everything around it (see `trl_family`).
"""

from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from trainshed.config.schema import ModelSection
from trainshed.config.trainers.reward import RewardParameters
from trainshed.config.trl import TRLParameters
from trainshed.models.reward_models import load_reward_model
from trainshed.trainers.trl_family import TRLTrainer


class RewardTrainer(TRLTrainer):
    """Trains a reward model on preference pairs; see `TRLTrainer` for the parameters.

    ``model`` is a sequence classifier with one label (see `models.reward_models`).
    """

    algorithm: ClassVar[str] = "reward"
    trl_class: ClassVar[str] = "trl:RewardTrainer"
    arguments_class: ClassVar[str] = "trl:RewardConfig"
    parameters_class: ClassVar[type[TRLParameters]] = RewardParameters

    @classmethod
    def load(cls, section: ModelSection, *, seed: int) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load a reward model, or a language model whose output is replaced by a new head."""
        return load_reward_model(section, seed=seed)
