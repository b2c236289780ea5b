"""Parameters of on-policy distillation (arXiv 2306.13649). Left out: the trainer."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trainshed.config.schema import Count, Share, Temperature
from trainshed.config.trl import TaughtParameters


class DistillationParameters(TaughtParameters):
    """What distillation takes besides the arguments of TRL's `DistillationConfig`.

    `beta` is the divergence: 0 is KL(teacher, student), 1, the default, KL(student, teacher), between them
    the generalized Jensen-Shannon divergence; `temperature` counts for the sampling, and for both models.
    """

    arguments_table: ClassVar[str | None] = "trl.DistillationConfig"
    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **TaughtParameters.hidden_arguments,
        "max_tool_calling_iterations": "a YAML can name no tools",
    }
    bounds: ClassVar[Mapping[str, Any]] = {
        "beta": Share,
        "temperature": Temperature,
        "max_completion_length": Count,
        "top_p": Annotated[float, Field(gt=0, le=1)],
    }
