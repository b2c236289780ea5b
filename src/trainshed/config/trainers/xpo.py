"""Parameters of exploratory preference optimisation (arXiv 2405.21046). Left out: the trainer."""

from typing import Annotated

from pydantic import Field

from trainshed.config.online import NotNegative, OnlineParameters


class XPOParameters(OnlineParameters):
    """What XPO takes besides the arguments of `transformers.TrainingArguments`."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the reference holds, as in DPO."""
    alpha: NotNegative = 1e-5
    """Weight of the optimism that takes probability from what the reference does anyway; 0 is online DPO."""
