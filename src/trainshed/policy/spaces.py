"""Observations and actions of an environment, as numbers for a network and as data for a file.

A description holds what a saved policy needs to read observations and to give actions, so that it is used
without the environment and without Gymnasium. Left out: environments (`environments`) and networks
(`control`).
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from trainshed.errors import ConfigError


def describe_observations(space: Any, where: str = "observations") -> dict[str, Any]:
    """Return a Gymnasium space as JSON-able data.

    Parameters
    ----------
    space
        ``Box``, ``MultiBinary``, ``Discrete``, or a ``Dict`` or ``Tuple`` of these.
    where
        What an error calls it.

    Raises
    ------
    ConfigError
        When it is of another kind.
    """
    kind = _kind(space)
    if kind in ("Box", "MultiBinary"):
        return {"kind": "numbers", "shape": [int(size) for size in space.shape]}
    if kind == "Discrete":
        return {"kind": "choice", "n": int(space.n), "start": int(space.start)}
    if kind == "Dict":
        parts = {str(k): describe_observations(part, f"{where}.{k}") for k, part in space.spaces.items()}
        return {"kind": "named", "parts": parts}
    if kind == "Tuple":
        listed = [describe_observations(part, f"{where}[{i}]") for i, part in enumerate(space.spaces)]
        return {"kind": "listed", "parts": listed}
    raise ConfigError(
        f"an observation space of kind {kind} cannot be read by a policy",
        where=where,
        fix="Box, MultiBinary, Discrete, or a Dict or Tuple of these; wrap the environment",
    )


def _kind(space: Any) -> str:
    """Return the name of Gymnasium's class that a space is of, or its own."""
    names = [kind.__name__ for kind in type(space).__mro__]
    known = ("Box", "MultiBinary", "Discrete", "Dict", "Tuple")
    return next((name for name in names if name in known), names[0])


def observation_size(description: Mapping[str, Any]) -> int:
    """Return how many numbers an observation is, flat."""
    kind, parts = description["kind"], description.get("parts", ())
    if kind == "numbers":
        return math.prod(description["shape"])
    if kind == "choice":
        return int(description["n"])
    return sum(observation_size(part) for part in (parts.values() if kind == "named" else parts))


def flatten(description: Mapping[str, Any], observation: Any) -> np.ndarray:
    """Return an observation as float32 ``[d]``: arrays in a row, a choice as one 1 among zeros."""
    kind = description["kind"]
    if kind == "numbers":
        return np.asarray(observation, dtype=np.float32).reshape(-1)
    if kind == "choice":
        found = np.zeros(description["n"], dtype=np.float32)
        found[int(observation) - description["start"]] = 1.0
        return found
    parts = description["parts"]
    pairs = ((parts[key], observation[key]) for key in (parts if kind == "named" else range(len(parts))))
    return np.concatenate([flatten(part, value) for part, value in pairs])


@dataclass(frozen=True)
class Actions:
    """What a policy acts with.

    Parameters
    ----------
    kind
        ``discrete``: one of ``size`` choices. ``box``: ``size`` numbers.
    size
        See ``kind``.
    start
        What the environment calls the first choice.
    shape, dtype
        Of the array of numbers that the environment takes.
    low, high
        Bounds of each number, None where there is none.
    """

    kind: Literal["discrete", "box"]
    size: int
    start: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()

    @classmethod
    def from_space(cls, space: Any) -> Self:
        """Return the actions of a Gymnasium space.

        Raises
        ------
        ConfigError
            When the space is neither ``Discrete`` nor ``Box``.
        """
        kind = _kind(space)
        if kind == "Discrete":
            return cls("discrete", int(space.n), start=int(space.start))
        if kind == "Box":
            bounds = (
                tuple(float(bound) if np.isfinite(bound) else None for bound in side.reshape(-1).tolist())
                for side in (space.low, space.high)
            )
            low, high = bounds
            return cls("box", len(low), shape=tuple(space.shape), dtype=str(space.dtype), low=low, high=high)
        raise ConfigError(
            f"an action space of kind {kind} cannot be acted in",
            where="actions",
            fix="Discrete or Box; wrap the environment, or take another",
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        listed = {name: tuple(data[name]) for name in ("shape", "low", "high")}
        return cls(**{**data, **listed})

    def to_environment(self, action: Any) -> Any:
        """Return what the environment takes for what the policy chose.

        Parameters
        ----------
        action
            ``discrete``: the number of the choice, from 0. ``box``: ``[size]``; −1 and 1 are the bounds of a
            number that has two, others stand for themselves. What is beyond the bounds is the bound.
        """
        if self.kind == "discrete":
            return self.start + int(action)
        values = np.asarray(action, dtype=np.float64).reshape(-1)
        low, high, bounded, base, span = self._bounds
        stretched = base + (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * span
        found = np.where(bounded, stretched, np.clip(values, low, high))
        return found.reshape(self.shape).astype(self.dtype)

    @functools.cached_property
    def _bounds(self) -> tuple[np.ndarray, ...]:
        """The bounds, which numbers have two, and where these begin and how far they go."""
        low = np.array([-np.inf if bound is None else bound for bound in self.low])
        high = np.array([np.inf if bound is None else bound for bound in self.high])
        bounded = np.isfinite(low) & np.isfinite(high)
        base, end = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0)
        return low, high, bounded, base, end - base
