"""How a YAML names rewards: a name, or a mapping with that name, a weight and the reward's options.

Stands below the sections, so that they can name rewards too. Left out: the options of each reward
(`rewards`).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, ValidationError, WithJsonSchema, model_validator

from trainshed.config.section import Section
from trainshed.errors import UnknownNameError
from trainshed.registry import REWARD_PARAMETERS, REWARDS


class RewardEntry(Section):
    """One reward: its name, how much it counts, and its options."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Registered name, as `trainshed list rewards` shows it, or `module:function`."""
    weight: float = 1.0
    """What its values are multiplied by in the sum."""

    @property
    def options(self) -> dict[str, Any]:
        """The options as they were given."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if ":" in self.name:
            return self
        try:
            name = REWARDS.canonical(self.name)
        except UnknownNameError as error:
            raise ValueError(f"{error.what}; {error.fix}, or module:function of your own") from None
        if name in REWARD_PARAMETERS.names():
            try:
                REWARD_PARAMETERS.get(name).model_validate(self.options)
            except ValidationError as error:
                raise ValueError(f"reward {name}: {_told(error)}") from None
        return self


def _told(error: ValidationError) -> str:
    """Return the first problem of the options, with the key it concerns."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"it has no option {key!r}"
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _entries(value: Any) -> Any:
    """Take a name for an entry without options, and one entry for a list of it."""
    listed = value if isinstance(value, list) else [value]
    return [{"name": item} if isinstance(item, str) else item for item in listed]


_ENTRY_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "weight": {"type": "number", "default": 1.0}},
            "required": ["name"],
            "additionalProperties": True,
        },
    ]
}
#: a list of rewards as a YAML writes it
RewardList = Annotated[
    list[RewardEntry],
    BeforeValidator(_entries),
    WithJsonSchema({"type": "array", "items": _ENTRY_SCHEMA}),
]
#: one function as a YAML writes it
OneReward = Annotated[
    RewardEntry | None,
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [*_ENTRY_SCHEMA["anyOf"], {"type": "null"}]}),
]


def all_entries(rewards: Sequence[RewardEntry], reward_model: str | None) -> list[RewardEntry]:
    """Return every reward, and with weight 1 the model where one is given and no entry names it."""
    named = any(entry.name == "reward_model" for entry in rewards)
    more = [RewardEntry(name="reward_model")] if reward_model is not None and not named else []
    return [*rewards, *more]


def check_reward_model(key: str, rewards: Sequence[RewardEntry], reward_model: str | None) -> None:
    """Raise `ValueError` when an entry under ``key`` is the reward model and none is given."""
    if reward_model is None and any(entry.name == "reward_model" for entry in rewards):
        raise ValueError(f"`{key}` names reward_model; say which model it is in `reward_model`")
