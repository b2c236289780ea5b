"""What every trainer is: two ways in, and train, evaluate, save.

A trainer is made from ready objects by its constructor or from a run's configuration by `Trainer.from_run`;
behind these doors nothing differs. Left out: loops (see `transformers_family`) and federation.
"""

import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from trainshed.config.resolved import RunConfig
from trainshed.errors import NotAvailableError
from trainshed.plan.directory import RunDirectory
from trainshed.plan.interrupts import StopRequest
from trainshed.plan.metrics import MetricsLog


class RunContext(Protocol):
    """What a run gives to a trainer; the stages' own context is one."""

    @property
    def directory(self) -> RunDirectory:
        """Where everything about the run lies."""

    @property
    def config(self) -> RunConfig:
        """The resolved configuration."""

    @property
    def inputs(self) -> dict[str, Path]:
        """For each upstream stage, by its name, its outputs."""

    @property
    def stop(self) -> StopRequest:
        """Tells that a signal came."""


@dataclass(frozen=True)
class TrainResult:
    """What a training gives back.

    Parameters
    ----------
    loss
        Mean training loss over all steps, those before an interruption included; NaN when there were none.
    metrics
        Final numbers, ``group/name`` to value.
    steps
        Optimizer steps in all; of `rl`, steps in the environments.
    history
        What was logged, in order: ``{"step": 10, "train/loss": 1.5, ...}``.
    """

    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainerSettings:
    """How a training runs, which does not decide its result.

    Parameters
    ----------
    directory
        Where checkpoints go; None keeps none beyond the call.
    resume
        Go on from the last intact checkpoint in ``directory``; otherwise earlier ones there are deleted.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    metrics
        Log that measurements go to.
    trackers
        Registered names of trackers that they also go to.
    project, name
        What trackers call the project and the run; the progress line shows the name.
    stop
        Tells that a signal came; None listens to SIGINT and SIGTERM itself while training.
    on_step
        Called with (step, total) after each optimizer step, of `rl` after each rollout.
    """

    directory: Path | None = None
    resume: bool = False
    device: str = "auto"
    metrics: MetricsLog | None = None
    trackers: tuple[str, ...] = ()
    project: str | None = None
    name: str = "train"
    stop: StopRequest | None = None
    on_step: Callable[[int, int], None] | None = None

    @classmethod
    def from_context(cls, context: RunContext) -> Self:
        """Return the settings of a run."""
        execution = context.config.execution
        return cls(
            directory=context.directory.checkpoints,
            resume=True,
            device=execution.device,
            metrics=context.directory.metrics(),
            trackers=tuple(execution.trackers),
            project=execution.project,
            name=context.config.name,
            stop=context.stop,
            on_step=context.directory.progress,
        )


class Trainer(ABC):
    """One algorithm.

    Parameters
    ----------
    seed
        Every random choice of the training derives from it.
    settings
        How it runs.
    """

    def __init__(self, *, seed: int = 0, settings: TrainerSettings | None = None) -> None:
        self.seed = seed
        self.settings = settings or TrainerSettings()

    @classmethod
    @abstractmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes."""

    def set_seed(self, seed: int) -> None:
        """Set the seed that the next `train` starts from; no global generator is touched."""
        self.seed = seed

    @abstractmethod
    def train(self) -> TrainResult:
        """Train and return what came of it."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Return metrics on the evaluation data, ``group/name`` to value; nothing is changed."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write what was trained into a directory that ``from_pretrained`` loads."""

    def write_report(self, path: Path) -> dict[str, float]:
        """Write what else is worth keeping about what was trained, such as predictions; return metrics.

        A stage calls it once after `save`, with the directory of its outputs. There is nothing by default.
        """
        return {}

    def get_federated_task(self) -> Any:
        """Return the federated form of this training: not in this version.

        Raises
        ------
        NotAvailableError
            Always.
        """
        raise NotAvailableError(
            "federated training is not available in this version",
            where=f"{type(self).__name__}.get_federated_task",
            fix="call train() to train on this machine's data",
        )


@contextlib.contextmanager
def isolated_random_state() -> Iterator[None]:
    """Give the global random generators back as they were when the block ends.

    Libraries draw from them (dropout does); what surrounds a training must not notice.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.random.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
