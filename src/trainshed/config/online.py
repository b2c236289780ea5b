"""Parameters that every algorithm shares which generates while it trains: rollouts, sampling, rewards.

Left out: what an algorithm does with its rollouts (`trainers`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trainshed.config.parameters import COMPUTED_ARGUMENTS
from trainshed.config.rewards import RewardedParameters
from trainshed.config.schema import Count, Temperature

NotNegative = Annotated[float, Field(ge=0)]


class OnlineParameters(RewardedParameters):
    """How prompts become judged completions."""

    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **COMPUTED_ARGUMENTS,
        "dataloader_drop_last": "prompts go round without an end",
        "train_sampling_strategy": "prompts come in an order that follows from the seed",
    }
    argument_defaults: ClassVar[Mapping[str, Any]] = {
        **RewardedParameters.argument_defaults,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
    }

    rollout_batch_size: Count = 64
    """Prompts of a rollout; a multiple of what an optimizer step sees, `per_device_train_batch_size` times
    `gradient_accumulation_steps`."""
    generation_batch_size: Count = 64
    """Completions that are generated and scored at once."""
    max_prompt_length: Count | None = None
    """Longest prompt in tokens, whose beginning is cut, which a line tells; when not set, a prompt that
    leaves no room for `max_new_tokens` is an error."""
    max_new_tokens: Count = 64
    """Longest completion in tokens, with the token that ends it."""
    temperature: Temperature = 1.0
    """Of the sampling; probabilities, entropy and KL are those at this temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the fewest tokens with this much probability; below 1 the probabilities that are learned
    from are not quite those sampled from."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from so many of the likeliest tokens; 0 takes all."""
    stop_token: str | None = None
    """A further token that ends a completion; it is part of it, and what follows it is not."""
    missing_eos_penalty: NotNegative = 0.0
    """What a completion loses that does not end within `max_new_tokens`."""
    reward_clip: Annotated[float, Field(gt=0)] | None = None
    """Bound of a completion's score, up and down."""
