"""Parameters of binary classifier optimisation (arXiv 2404.04656). Left out: the trainer."""

from typing import Annotated

from pydantic import Field

from trainshed.config.online import NotNegative
from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import Count


class BCOParameters(TrainerParameters):
    """What BCO takes besides the arguments of `transformers.TrainingArguments`."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the reference holds; the reward is `beta` times the log-ratio to it."""
    delta_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the running reward shift stays from one optimizer step to the next."""
    desired_weight: NotNegative = 1.0
    """Weight of the loss of desired completions."""
    undesired_weight: NotNegative = 1.0
    """Weight of the loss of undesired completions."""
    max_length: Count = 1024
    """Longest prompt with its completion, in tokens; the beginning of the prompt is cut."""
