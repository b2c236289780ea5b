"""What happens besides the training: progress, ``metrics.jsonl``, trackers, and stopping.

Left out: checkpoints (see `loop`) and the loss.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from trainshed import progress
from trainshed.errors import require_extra
from trainshed.plan.interrupts import StopRequest
from trainshed.plan.metrics import MetricsLog
from trainshed.registry import TRACKERS
from trainshed.trainers.base import TrainerSettings

#: what the library logs about its own clock, which is not the same twice
_CLOCK = ("runtime", "per_second", "total_flos", "train_loss")


def group_names(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return what the library logged as ``group/name``: ``loss`` as ``train/loss``, ``eval_x`` as ``eval/x``.

    ``eval_x/y`` becomes ``eval/x_y``, so that it is not taken for the ``x/y`` of the training. The library's
    clock is left out, so that what remains is the same in every repetition.
    """
    named = {}
    for name, value in logs.items():
        if name == "step" or name.endswith(_CLOCK) or not isinstance(value, int | float):
            continue
        inner = name.removeprefix("eval_")
        if inner != name:
            named["eval/" + inner.replace("/", "_")] = float(value)
        else:
            named[name if "/" in name else f"train/{name}"] = float(value)
    return named


class MetricsCallback(TrainerCallback):
    """Writes what is logged to ``metrics.jsonl``.

    Parameters
    ----------
    log
        The file.
    """

    def __init__(self, log: MetricsLog) -> None:
        self.log = log

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop lines of steps that will be done again."""
        if state.is_world_process_zero:
            self.log.truncate_after(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append a line."""
        values = group_names(logs or {})
        if state.is_world_process_zero and values.keys() - {"train/epoch"}:
            self.log.write(state.global_step, values)


class ProgressCallback(TrainerCallback):
    """Shows how far the training is, and its loss.

    Parameters
    ----------
    description
        What is shown before the bar.
    settings
        Whose ``on_step`` is called too.
    """

    def __init__(self, description: str, settings: TrainerSettings) -> None:
        self.description, self.settings = description, settings
        self._stack = contextlib.ExitStack()
        self._task: progress.Task | None = None
        self._note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar."""
        if state.is_world_process_zero:
            self._task = self._stack.enter_context(progress.task(self.description, state.max_steps))
            if state.global_step:
                self._task.update(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Remember the loss, to show it."""
        if logs and math.isfinite(logs.get("loss", math.nan)):
            self._note = f"loss {logs['loss']:.4f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._task is not None:
            self._task.update(state.global_step, self._note)
            if self.settings.on_step:
                self.settings.on_step(state.global_step, state.max_steps)

    def close(self) -> None:
        """Take the bar away, however the training ended."""
        self._task = None
        self._stack.close()


class StopCallback(TrainerCallback):
    """Saves a checkpoint at the end of the step in which a signal came, and ends the training.

    Parameters
    ----------
    stop
        Tells that a signal came.
    saves
        Whether there is anywhere to save to.
    """

    def __init__(self, stop: StopRequest, *, saves: bool) -> None:
        self.stop, self.saves = stop, saves
        self._stopping = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when a signal came to any process."""
        self._stopping = self._anywhere(args)
        if self._stopping and self.saves:
            control.should_save = True
        elif self._stopping:
            self._end()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the training now that its state is safe."""
        if self._stopping:
            self._end()

    def _anywhere(self, args: Any) -> bool:
        if args.world_size <= 1:
            return self.stop.requested
        import torch
        import torch.distributed as dist

        flag = torch.tensor(int(self.stop.requested), device=args.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def _end(self) -> None:
        self.stop.check()
        raise KeyboardInterrupt("another process was asked to stop")


def tracker_callbacks(settings: TrainerSettings) -> list[TrainerCallback]:
    """Return the callbacks of the trackers that the settings name.

    Raises
    ------
    MissingExtraError
        When one of them is not installed.
    """
    made = []
    for name in settings.trackers:
        known = TRACKERS.canonical(name)
        if known in ("mlflow", "tensorboard", "trackio", "wandb"):
            require_extra(known, known)
        callback = TRACKERS.get(known)()
        if known == "tensorboard" and settings.directory is not None:
            callback.logging_dir = str(settings.directory.parent / "tensorboard")
        made.append(callback)
    return made
