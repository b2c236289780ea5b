"""What the parameters of all algorithms on TRL's trainers share.

``training`` takes the fields of TRL's own argument class, from a table. Left out: the algorithms
(`trainers`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from trainshed.config.parameters import COMPUTED_ARGUMENTS, TrainerParameters
from trainshed.config.rewards import RewardedParameters


class TRLParameters(TrainerParameters):
    """The parameters of an algorithm that is a trainer of TRL."""

    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **COMPUTED_ARGUMENTS,
        "model_init_kwargs": "set the keys of the section `model`",
        "trust_remote_code": "set model.trust_remote_code",
    }
    # TRL computes in bfloat16 unless told otherwise, which a CPU without it refuses
    argument_defaults: ClassVar[Mapping[str, Any]] = {
        "logging_steps": 10.0,
        "save_total_limit": 2,
        "bf16": "auto",
    }
    reads: ClassVar[frozenset[str]] = frozenset({"model", "data"})


class RewardedTRLParameters(TRLParameters, RewardedParameters):
    """The parameters of an algorithm of TRL whose completions are judged by rewards."""

    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **TRLParameters.hidden_arguments,
        "reward_weights": "give each of training.rewards its weight",
    }
