"""Environments of Gymnasium: making them, stepping several, and putting them back where they were.

Every episode begins with a seed of its own, so that an episode is a function of its seed and its actions.
That is what a checkpoint holds of it, and what `Environments.restore` plays again: exact, for any environment
that keeps Gymnasium's promise about seeds, and as long as the episode has lasted so far. One that keeps
something from an episode to the next, or does not follow its seed, is found out by its observation and
refused. Left out: observations and actions as numbers (`spaces`), and policies (`control`).
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainshed.errors import CheckpointError, ConfigError, RunError, nearest, require_extra
from trainshed.policy.spaces import Actions, describe_observations, flatten, observation_size


def make_environment(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Make one environment.

    Parameters
    ----------
    name
        An id of Gymnasium, or ``module:Class`` (or a function) that returns a `gymnasium.Env`.
    options
        What it is made with.

    Raises
    ------
    MissingExtraError
        When Gymnasium is not installed.
    ConfigError
        When there is no such environment, what it needs is not installed, or it does not take the options.
    """
    require_extra("gymnasium", "rl")
    import gymnasium

    module, _, attribute = name.partition(":")
    try:
        if attribute.isidentifier():
            made = _imported(name, module, attribute)(**(options or {}))
        else:
            made = gymnasium.make(name, disable_env_checker=True, **(options or {}))
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(
            f"{name} needs what is not installed: {error}", where="training.env_name"
        ) from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        near = nearest(name, gymnasium.registry)
        raise ConfigError(
            f"there is no environment {name!r}: {error}",
            where="training.env_name",
            fix=f"did you mean {near!r}?" if near else "an id of Gymnasium, or `module:Class` of your own",
        ) from error
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be made with {dict(options or {})}: {error}", where="training.env_kwargs"
        ) from error
    if not isinstance(made, gymnasium.Env):
        raise ConfigError(
            f"{name} gives a {type(made).__name__}, not a gymnasium.Env", where="training.env_name"
        )
    return made


def _imported(name: str, module: str, attribute: str) -> Callable[..., Any]:
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the environment {name} cannot be imported: {error}",
            where="training.env_name",
            fix="module:Class, with the module's directory on PYTHONPATH",
        ) from error
    if not callable(found):
        raise ConfigError(f"{name} is neither a class nor a function", where="training.env_name")
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Episode:
    """An episode that has ended: the sum of its rewards, and its steps."""

    total: float
    length: int


@dataclass(frozen=True)
class Step:
    """One step of ``n`` environments.

    Parameters
    ----------
    following
        ``[n, d]`` float32, what each action led to: where an episode ended, its last observation and not the
        first of the next.
    rewards
        ``[n]`` float32.
    terminated
        ``[n]``: the episode is over and nothing would follow.
    truncated
        ``[n]``: it was cut off, such as by a limit of time; what follows has a value.
    ended
        The episodes that ended.
    """

    following: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ended: tuple[Episode, ...]


@dataclass
class _Running:
    """The episode that one environment is in."""

    number: int = -1
    actions: list[np.ndarray] = field(default_factory=list)
    total: float = 0.0


class Environments:
    """Several environments of one kind, stepped in turn in this process.

    Parameters
    ----------
    make
        Makes one of them.
    count
        How many.
    seed_of
        From the number of an environment and of its episode to the episode's seed.

    Attributes
    ----------
    observations
        ``[n, d]`` float32, what each environment shows now.
    """

    def __init__(self, make: Callable[[], Any], count: int, seed_of: Callable[[int, int], int]) -> None:
        self._all = [make() for _ in range(count)]
        self._seed_of = seed_of
        self._running = [_Running() for _ in range(count)]
        self.description = describe_observations(self._all[0].observation_space)
        self.actions = Actions.from_space(self._all[0].action_space)
        self.observations = np.zeros((count, observation_size(self.description)), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._all)

    def begin(self) -> None:
        """Begin the first episode of each environment."""
        self._running = [_Running() for _ in self._all]
        for index in range(len(self._all)):
            self._begin_next(index)

    def step(self, actions: np.ndarray) -> Step:
        """Act in each environment, and begin the next episode where one ended.

        Parameters
        ----------
        actions
            ``[n]`` choices or ``[n, k]`` numbers, as `Actions.to_environment` takes them.

        Raises
        ------
        RunError
            When an environment gives a reward or an observation that is not finite.
        """
        following = np.empty_like(self.observations)
        rewards = np.zeros(len(self._all), dtype=np.float32)
        terminated, truncated = (np.zeros(len(self._all), dtype=bool) for _ in range(2))
        ended: list[Episode] = []
        for index, action in enumerate(actions):
            following[index], rewards[index], terminated[index], truncated[index] = self._act(index, action)
        if not (np.isfinite(following).all() and np.isfinite(rewards).all()):
            raise RunError(
                "an environment gave a reward or an observation that is not a finite number",
                fix="look for a division by zero in the environment, or bound what it gives",
            )
        np.copyto(self.observations, following)
        for index in np.flatnonzero(terminated | truncated).tolist():
            running = self._running[index]
            ended.append(Episode(running.total, len(running.actions)))
            self._begin_next(index)
        return Step(following, rewards, terminated, truncated, tuple(ended))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what `restore` needs: JSON-able data, and arrays by name."""
        arrays = {"observations": self.observations.copy()}
        for index, running in enumerate(self._running):
            if running.actions:
                arrays[f"actions.{index}"] = np.stack(running.actions)
        return {"episodes": [running.number for running in self._running]}, arrays

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Play the running episodes again, up to where they were.

        Raises
        ------
        CheckpointError
            When an environment does not come out where it was.
        """
        for index, number in enumerate(state["episodes"]):
            self._running[index] = _Running(number - 1)
            self._begin_next(index)
            over = False
            for action in arrays.get(f"actions.{index}", ()):
                self.observations[index], _, terminated, truncated = self._act(index, action)
                over = over or terminated or truncated
            if over or not np.array_equal(self.observations[index], arrays["observations"][index]):
                raise CheckpointError(
                    "the environment is not where it was when the same actions are taken after the same seed",
                    where=f"environment {index}, episode {number}",
                    fix="let it draw all its chance from the generator that reset(seed=...) seeds and keep "
                    "nothing between episodes, or delete the checkpoints to start afresh",
                )

    def close(self) -> None:
        """Close each environment."""
        for environment in self._all:
            environment.close()

    # -- inside ----------------------------------------------------------------------------------------

    def _begin_next(self, index: int) -> None:
        number = self._running[index].number + 1
        self._running[index] = _Running(number)
        observation, _ = self._all[index].reset(seed=self._seed_of(index, number))
        self.observations[index] = flatten(self.description, observation)

    def _act(self, index: int, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        running = self._running[index]
        observation, reward, terminated, truncated, _ = self._all[index].step(
            self.actions.to_environment(action)
        )
        running.actions.append(np.array(action))
        running.total += float(reward)
        return flatten(self.description, observation), float(reward), bool(terminated), bool(truncated)


@contextlib.contextmanager
def opened(environments: Environments) -> Iterator[Environments]:
    """Close environments when the block ends."""
    try:
        yield environments
    finally:
        environments.close()


def play(
    make: Callable[[], Any],
    choose: Callable[[np.ndarray], np.ndarray],
    seeds: Sequence[int],
    *,
    at_once: int = 8,
) -> list[Episode]:
    """Play whole episodes.

    Parameters
    ----------
    make
        Makes an environment.
    choose
        From observations ``[n, d]`` to actions ``[n]`` or ``[n, k]``.
    seeds
        One for each episode.
    at_once
        How many environments there are at most.

    Returns
    -------
    list of Episode
        In the order of ``seeds``.
    """
    found: list[Episode] = []
    for start in range(0, len(seeds), at_once):
        part = seeds[start : start + at_once]
        # the second episode of each is begun and not looked at
        made = Environments(make, len(part), lambda index, number, part=part: part[index])  # type: ignore[misc]
        with opened(made) as environments:
            environments.begin()
            ended: dict[int, Episode] = {}
            while len(ended) < len(part):
                step = environments.step(choose(environments.observations))
                over = np.flatnonzero(step.terminated | step.truncated).tolist()
                for index, episode in zip(over, step.ended, strict=True):
                    ended.setdefault(index, episode)
            found += [ended[index] for index in range(len(part))]
    return found
