"""Several reward functions with weights, as one; each value is kept beside the sum.

A reward function is called as TRL calls it, so that the same functions go to its GRPO and RLOO trainers:
``f(prompts, completions, **columns) -> list[float]``, where a completion is a text, or the list of messages
that answers a list of messages, and a value may be None where the function has nothing to say. Left out: the
functions (`matching`, `code_tests`, `reward_model`, `endpoint`).
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from trainshed.config.rewards import RewardEntry, RewardOptions
from trainshed.errors import ConfigError, DataError, RunError
from trainshed.registry import REWARD_PARAMETERS, REWARDS


class RewardFunction(Protocol):
    """What judges completions; an object may keep why it failed on each in ``failures``."""

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> Sequence[float | None]:
        """Return one value for each completion; None where it does not apply."""


@dataclass(frozen=True)
class Judged:
    """What rewards said about a batch of completions.

    Parameters
    ----------
    totals
        Weighted sum for each completion.
    values
        Of each reward by its name; NaN where it had nothing to say.
    failures
        For each completion, why which reward failed on it: ``{"code_tests": "timed out"}``.
    """

    totals: list[float]
    values: dict[str, list[float]]
    failures: list[dict[str, str]] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Return ``reward/<name>`` over the completions it applied to; ``reward/<name>_failed``, a share."""
        found = {}
        for name, values in self.values.items():
            told = [value for value in values if not math.isnan(value)]
            if told:
                found[f"reward/{name}"] = sum(told) / len(told)
            failed = sum(name in reasons for reasons in self.failures)
            if failed:
                found[f"reward/{name}_failed"] = failed / len(values)
        return found


class WeightedRewards:
    """Reward functions with weights.

    Parameters
    ----------
    functions
        By the name under which each is reported.
    weights
        Of each; 1 where none is given.

    Raises
    ------
    ConfigError
        When there is no function.
    """

    def __init__(
        self, functions: Mapping[str, RewardFunction], weights: Mapping[str, float] | None = None
    ) -> None:
        if not functions:
            raise ConfigError(
                "nothing judges the completions",
                where="training.rewards",
                fix="name a reward such as exact_match, or a reward_model",
            )
        self.functions = dict(functions)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in self.functions}

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> Judged:
        """Judge completions.

        Parameters
        ----------
        prompts
            ``n`` texts or lists of messages.
        completions
            ``n`` texts, or lists of messages where prompts are.
        columns
            Further columns of the data, ``n`` values each.

        Raises
        ------
        RunError
            When a function gives another number of values, one that is not finite, or nothing at all.
        """
        count = len(completions)
        values: dict[str, list[float]] = {}
        failures: list[dict[str, str]] = [{} for _ in range(count)]
        for name, function in self.functions.items():
            given = function(
                prompts=list(prompts),
                completions=list(completions),
                **{key: list(value) for key, value in columns.items()},
            )
            values[name] = _checked(name, given, count)
            for reasons, why in zip(failures, getattr(function, "failures", None) or (), strict=False):
                if why is not None:
                    reasons[name] = why
        totals = [self._total({name: values[name][row] for name in values}) for row in range(count)]
        return Judged(totals, values, failures)

    def _total(self, values: Mapping[str, float]) -> float:
        told = {name: value for name, value in values.items() if not math.isnan(value)}
        if not told:
            raise RunError(
                "no reward applies to a completion: all of them gave None",
                where=", ".join(values),
                fix="let one reward give a value for every completion",
            )
        return sum(self.weights[name] * value for name, value in told.items())


def _checked(name: str, given: Any, count: int) -> list[float]:
    try:
        found = [math.nan if value is None else float(value) for value in given]
    except TypeError as error:
        raise RunError(
            f"the reward gave {given!r}"[:200], where=name, fix="a list of numbers, one a completion"
        ) from error
    if len(found) != count:
        raise RunError(
            f"the reward gave {len(found)} values for {count} completions", where=name, fix="one for each"
        )
    wrong = next((value for value in found if math.isinf(value)), None)
    if wrong is not None:
        raise RunError(f"the reward gave {wrong}", where=name, fix="finite numbers, or None")
    return found


def build_rewards(
    entries: Sequence[RewardEntry],
    *,
    reward_model: str | None = None,
    device: str = "cpu",
    where: str = "training.rewards",
) -> WeightedRewards:
    """Make the rewards that a configuration names.

    Parameters
    ----------
    entries
        `trainshed.config.rewards.RewardedParameters.reward_entries`.
    reward_model
        The model that the reward of that name loads.
    device
        Where it is put.
    where
        The key that names them, for messages.

    Raises
    ------
    ConfigError
        When a function cannot be imported or an option does not fit.
    """
    functions: dict[str, RewardFunction] = {}
    weights: dict[str, float] = {}
    for entry in entries:
        name = _free_name(entry.name, functions)
        functions[name] = make_reward(entry, reward_model=reward_model, device=device, where=where)
        weights[name] = entry.weight
    return WeightedRewards(functions, weights)


def make_reward(
    entry: RewardEntry,
    *,
    reward_model: str | None = None,
    device: str = "cpu",
    where: str = "training.rewards",
) -> RewardFunction:
    """Make the reward of one entry; the arguments are those of `build_rewards`."""
    if ":" in entry.name:
        return _bound(_imported(entry.name, where), entry.options)
    name = REWARDS.canonical(entry.name)
    made = REWARDS.get(name)
    if name not in REWARD_PARAMETERS.names():
        return _bound(made, entry.options)
    try:
        options: RewardOptions = REWARD_PARAMETERS.get(name).model_validate(entry.options)
    except ValidationError as error:
        raise ConfigError(f"the options of {name} do not fit: {error}", where=where) from error
    if name == "reward_model":
        return made(options, model=reward_model, device=device)  # type: ignore[no-any-return]
    return made(options)  # type: ignore[no-any-return]


def completion_text(completion: Any) -> str:
    """Return a completion's text: itself, or the content of its last message."""
    if isinstance(completion, str):
        return completion
    return str(completion[-1]["content"]) if completion else ""


def column(name: str, columns: Mapping[str, Any], reward: str) -> Sequence[Any]:
    """Return a column that a reward reads.

    Raises
    ------
    DataError
        When the data has no such column; names those it has.
    """
    if name not in columns:
        listed = ", ".join(sorted(columns)) or "none besides the prompt"
        raise DataError(
            f"the reward {reward} reads the column {name!r}, which the data does not have",
            where=f"columns: {listed}",
            fix=f"data.columns: {{{name}: ...}}, or the reward's option that names the column",
        )
    return columns[name]  # type: ignore[no-any-return]


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name to report under: the function's own for ``module:function``, numbered when taken."""
    short = name.rpartition(":")[2]
    number, found = 1, short
    while found in taken:
        number += 1
        found = f"{short}_{number}"
    return found


def _bound(function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    return functools.partial(function, **options) if options else function


def _imported(path: str, where: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the reward {path} cannot be imported: {error}",
            where=where,
            fix="module:function, with the module's directory on PYTHONPATH",
        ) from error
    if not callable(found):
        raise ConfigError(f"the reward {path} is no function", where=where)
    return found  # type: ignore[no-any-return]
