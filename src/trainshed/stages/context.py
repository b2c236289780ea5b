"""What a stage is given and what it gives back.

A stage is a function ``run(context: StageContext) -> StageResult``. It reads its configuration and the
outputs of the runs before it, writes its artifacts below ``context.directory.outputs``, and keeps whatever
it wants to go on from after a kill below ``context.directory.checkpoints``. Left out: executing stages (see
`cli.execute`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainshed.plan.directory import RunDirectory
from trainshed.plan.interrupts import StopRequest

if TYPE_CHECKING:
    from trainshed.config.resolved import RunConfig


@dataclass(frozen=True)
class StageContext:
    """What a stage is given.

    Parameters
    ----------
    directory
        The run directory. ``outputs/`` is empty; ``checkpoints/`` holds what an interrupted attempt left.
    config
        The resolved configuration, with absolute paths where it refers to other stages.
    inputs
        For each upstream stage, by its name, its ``outputs/`` directory.
    stop
        Tells a training loop that it was asked to stop: inside ``with context.stop.graceful():`` it looks at
        ``context.stop.requested`` at the end of each step, saves a checkpoint, and calls
        ``context.stop.check()``.
    """

    directory: RunDirectory
    config: "RunConfig"
    inputs: dict[str, Path] = field(default_factory=dict)
    stop: StopRequest = field(default_factory=StopRequest)


@dataclass(frozen=True)
class StageResult:
    """What a stage gives back.

    Parameters
    ----------
    metrics
        Final metrics, ``group/name`` to number; they are recorded in ``status.json``.
    """

    metrics: dict[str, float] = field(default_factory=dict)
