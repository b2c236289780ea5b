"""What the parameters of all algorithms on TRL's trainers share.

``training`` takes the fields of TRL's own argument class, from a table. Left out: the algorithms
(`trainers`).
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainshed.config.parameters import COMPUTED_ARGUMENTS, TrainerParameters
from trainshed.config.rewards import RewardedParameters
from trainshed.config.schema import INPUT


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
    #: argument to the narrower type of what TRL takes, which it says only once everything is loaded
    bounds: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def split(cls, values: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Check the keys of ``training`` and part them; see `TrainerParameters.split`."""
        own, arguments = super().split(values)
        bounded = {name: value for name, value in arguments.items() if name in cls.bounds}
        if bounded:
            _bounded(cls).model_validate(bounded)
        return own, arguments


@functools.cache
def _bounded(parameters: type[TRLParameters]) -> type[BaseModel]:
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in parameters.bounds.items()}
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    made: type[BaseModel] = create_model(f"{parameters.__name__}Bounds", __config__=config, **fields)
    return made


class RewardedTRLParameters(TRLParameters, RewardedParameters):
    """The parameters of an algorithm of TRL whose completions are judged by rewards."""

    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **TRLParameters.hidden_arguments,
        "reward_weights": "give each of training.rewards its weight",
    }


class TaughtParameters(TRLParameters):
    """The parameters of an algorithm of TRL in which a student, the model, learns from a teacher."""

    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **TRLParameters.hidden_arguments,
        "teacher_model_name_or_path": "set training.teacher_name_or_path",
        "teacher_model_revision": "set training.teacher_revision",
        "teacher_model_init_kwargs": "set training.teacher_dtype and the other keys of the teacher",
    }

    teacher_name_or_path: str | None = Field(default=None, json_schema_extra=INPUT)
    """Causal language model to learn from: a directory, a hub name, or `${stages.NAME}`. Its tokenizer must
    have the vocabulary of the student's."""
    teacher_revision: str | None = None
    """Branch, tag or commit of a teacher from the hub."""
    teacher_trust_remote_code: bool = False
    """Allow a teacher from the hub to run code that comes with it."""
    teacher_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Number type of the teacher's weights; `auto` takes bfloat16 where the device computes with it."""
    teacher_attn_implementation: str | None = None
    """The teacher's attention: `eager`, `sdpa`, `flash_attention_2`; its own choice when not set."""
    teacher_load_in_4bit: bool = False
    """Load the teacher's weights in 4 bits; needs a GPU."""

    @classmethod
    def split(cls, values: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Check the keys of ``training`` and part them; from Python, the teacher comes as a model instead."""
        own, arguments = super().split(values)
        if own.teacher_name_or_path is None:
            why = PydanticCustomError(
                "value_error", "there is no teacher: a directory, a hub name, or ${stages.NAME}"
            )
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=why, loc=("teacher_name_or_path",), input=None)]
            )
        return own, arguments
