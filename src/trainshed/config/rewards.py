"""What a YAML may say about rewards: which functions judge completions, with which weight and options.

An entry of ``training.rewards`` is a name (``exact_match``, or ``module:function`` of your own), or a
mapping with that name, a weight, and options (`reward_entries`). Left out: the functions themselves
(`trainshed.rewards`).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainshed.config.parameters import TrainerParameters
from trainshed.config.reward_entries import RewardEntry as RewardEntry
from trainshed.config.reward_entries import RewardList as RewardList
from trainshed.config.reward_entries import all_entries, check_reward_model
from trainshed.config.schema import INPUT, Count, Section

Seconds = Annotated[float, Field(gt=0)]


class RewardOptions(Section):
    """What every reward's options share; a plug-in subclasses it."""


class ExactMatchOptions(RewardOptions):
    """Options of `exact_match`."""

    answer_column: str = "answer"
    """Column of the data that holds the right answer, or a list of accepted ones."""
    match: Literal["text", "exact", "number", "contains"] = "text"
    """`text` ignores case, punctuation and spacing, `exact` only outer spaces, `number` compares the last
    number of the completion, `contains` looks for the answer anywhere in it."""
    extract: str | None = None
    """Regular expression whose last match (its first group, where it has one) is what is compared, such as
    `answer is (.+)`; a completion without a match is wrong."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        _check_pattern("extract", self.extract)
        return self


class FormatOptions(RewardOptions):
    """Options of `format`: a pattern or tags."""

    pattern: str | None = None
    """Regular expression that the whole completion must match; `.` matches a line's end too."""
    tags: tuple[str, ...] = ()
    """Tags that must stand in the completion once each and in this order, such as `think` and `answer`."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.pattern is None) == (not self.tags):
            raise ValueError("give either a pattern or tags")
        _check_pattern("pattern", self.pattern)
        return self


class LengthOptions(RewardOptions):
    """Options of `length`: 1 within the bounds, falling to 0 beyond them."""

    least: Annotated[int, Field(ge=0)] = 1
    """Fewest words that are worth the whole reward."""
    most: Count = 200
    """Most words that are worth the whole reward."""
    slack: Count = 50
    """Words beyond a bound at which nothing is left."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"`least` {self.least} is more than `most` {self.most}")
        return self


class CodeTestsOptions(RewardOptions):
    """Options of `code_tests`."""

    tests_column: str = "tests"
    """Column of the data that holds the tests: Python text, or a list of such texts."""
    partial: bool = False
    """Give the share of the tests that pass, instead of 1 only when all do."""
    time_s: Seconds = 5.0
    """Seconds of real time, and of CPU time, that a program with its tests may take."""
    memory_mb: Annotated[int, Field(ge=64)] = 512
    """Address space that it may take."""
    file_mb: Count = 4
    """Largest file that it may write."""
    workers: Count = 2
    """Programs that run at once."""
    require_isolation: bool = False
    """Refuse to start where the system allows no namespaces, which keep programs off the network."""


class RewardModelOptions(RewardOptions):
    """Options of `reward_model`; which model is `training.reward_model`."""

    batch_size: Count = 16
    """Texts that are scored at once."""
    max_length: Count | None = None
    """Longest text in tokens, whose beginning is cut; what the model reads when not set."""
    add_eos: bool = True
    """End plain text with the token that ends a text, as `reward` trains it."""


class HTTPOptions(RewardOptions):
    """Options of `http`: an endpoint that takes and gives JSON."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Where `{"prompts": [...], "completions": [...], "columns": {...}}` is posted."""
    timeout_s: Seconds = 30.0
    """Seconds to wait for an answer."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Further attempts when it does not answer or answers 429 or 5xx, each after twice the wait before."""
    backoff_s: Seconds = 0.5
    """Seconds to wait before the first further attempt."""
    batch_size: Count = 64
    """Completions in one request."""
    token_variable: str | None = None
    """Environment variable whose value is sent as a bearer token; it is written nowhere."""


def _check_pattern(name: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"`{name}` is no regular expression: {error}") from None


class RewardedParameters(TrainerParameters):
    """The parameters that every algorithm shares whose completions are judged by rewards."""

    rewards: RewardList = Field(default=[])
    """What judges completions: names, or mappings with `name`, `weight` and the reward's options."""
    reward_model: str | None = Field(default=None, json_schema_extra=INPUT)
    """Reward model: a directory, a hub name or `${stages.NAME}`; it is the reward named `reward_model`,
    added with weight 1 where `rewards` does not name it."""

    @model_validator(mode="after")
    def _judged(self) -> Self:
        check_reward_model("rewards", self.rewards, self.reward_model)
        return self

    def reward_entries(self) -> list[RewardEntry]:
        """Return every reward, the model of ``reward_model`` among them."""
        return all_entries(self.rewards, self.reward_model)

    @classmethod
    def split(cls, values: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Check the keys of ``training`` and part them; from Python, rewards come as functions instead."""
        own, arguments = super().split(values)
        if not own.rewards and own.reward_model is None:
            why = PydanticCustomError(
                "value_error", "nothing judges the completions: name rewards, or a reward_model"
            )
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=why, loc=("rewards",), input=None)]
            )
        return own, arguments
