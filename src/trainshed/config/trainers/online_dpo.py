"""Parameters of online direct preference optimization (arXiv 2402.04792). Left out: the trainer."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainshed.config.schema import INPUT, Count, Temperature
from trainshed.config.trl import RewardedTRLParameters

_NotNegative = Annotated[float, Field(ge=0)]


class OnlineDPOParameters(RewardedTRLParameters):
    """What online DPO takes besides the arguments of TRL's `OnlineDPOConfig`."""

    arguments_table: ClassVar[str | None] = "trl.experimental.online_dpo.OnlineDPOConfig"
    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **RewardedTRLParameters.hidden_arguments,
        "reward_model_path": "set training.reward_model",
    }
    bounds: ClassVar[Mapping[str, Any]] = {
        "beta": list[Annotated[float, Field(gt=0)]],
        "temperature": Temperature,
        "max_new_tokens": Count,
        "max_length": Count,
        "missing_eos_penalty": _NotNegative,
        "top_p": Annotated[float, Field(gt=0, le=1)],
        "loss_type": Literal["sigmoid", "ipo"],
    }

    reference_model: str | None = Field(default=None, json_schema_extra=INPUT)
    """The policy is kept near this model: a directory or hub name; the model as it starts when not set."""
    ties: Literal["skip", "first"] = "skip"
    """What two completions with the same reward teach: nothing, or, as in TRL, that the first is the better
    one, which is noise and with rewards of 0 and 1 most of what there is."""
