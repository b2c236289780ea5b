"""The base of trainers that run on a loop of the `transformers` library.

A subclass says what learns, from which data, and which loop; arguments, mixed precision, gradient
accumulation, several processes, checkpoints, resuming, progress, metrics and trackers come from here. Left
out: the loops (see `loop` and `trl_family`).
"""

import contextlib
import gc
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from trainshed.errors import ConfigError, DataError
from trainshed.files import canonical_json, digest_text
from trainshed.models.allocator import keep_freed_memory
from trainshed.models.encoders import weights_hash
from trainshed.models.precision import autocast, resolve_device
from trainshed.models.seeds import derive_seed
from trainshed.plan.interrupts import StopRequest
from trainshed.registry import load_attribute
from trainshed.trainers import arguments as argument_rules
from trainshed.trainers.base import Trainer, TrainerSettings, TrainResult, isolated_random_state
from trainshed.trainers.callbacks import (
    MetricsCallback,
    ProgressCallback,
    StopCallback,
    group_names,
    tracker_callbacks,
)
from trainshed.trainers.exact import ExactTraining

#: training examples that an error names
_ROWS_NAMED = 16


class LoopedTrainer(Trainer):
    """Trains one module with gradients.

    Parameters
    ----------
    arguments
        Of `arguments_class`, as a dict or such an object. ``bf16`` may be ``"auto"``: bfloat16 where the
        device computes with it in hardware.
    seed
        Every random choice of the training derives from it.
    settings
        How it runs; an ``output_dir`` among the arguments is the directory where the settings name none.
    callbacks
        More callbacks of the library.
    """

    #: arguments that this algorithm gives where the user does not
    argument_defaults: ClassVar[Mapping[str, Any]] = {}
    #: ``"module:attribute"`` of the class that the arguments belong to
    arguments_class: ClassVar[str] = "transformers:TrainingArguments"
    #: name under which seeds are derived and progress is shown
    algorithm: ClassVar[str] = "train"

    def __init__(
        self,
        *,
        arguments: Mapping[str, Any] | TrainingArguments | None = None,
        seed: int = 0,
        settings: TrainerSettings | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(seed=seed, settings=settings)
        given = argument_rules.given_arguments(arguments, load_attribute(self.arguments_class))
        self.arguments: dict[str, Any] = {**self.argument_defaults, **given}
        self.callbacks = tuple(callbacks)
        self._measured: dict[str, list[float]] = {}

    # -- what a subclass says --------------------------------------------------------------------------

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """What learns; its parameters with ``requires_grad=False`` stay as they are."""

    @abstractmethod
    def train_data(self) -> Sequence[Any]:
        """Return the examples to learn from."""

    def eval_data(self) -> Sequence[Any] | None:
        """Return the examples to evaluate on, or None."""
        return None

    @abstractmethod
    def make_loop(self, args: Any, callbacks: list[TrainerCallback]) -> ExactTraining:
        """Return the loop of one training.

        Parameters
        ----------
        args
            The library's arguments, of `arguments_class`.
        callbacks
            What happens besides.
        """

    def before_training(self, loop: ExactTraining) -> None:
        """Do what must be done when the loop is ready, such as adding callbacks."""

    def deciding_parameters(self) -> dict[str, Any]:
        """Return the algorithm's own parameters that a checkpoint is to be recognised by, JSON-able."""
        return {}

    def save_state(self, path: Path) -> None:
        """Write what a checkpoint must hold besides the module's weights (on the main process too)."""

    def load_state(self, path: Path) -> None:
        """Read what `save_state` wrote."""

    def describe_rows(self, indices: Sequence[int]) -> str:
        """Return what an error calls some training examples."""
        named = ", ".join(str(index + 1) for index in indices[:_ROWS_NAMED])
        more = f" and {len(indices) - _ROWS_NAMED} more" if len(indices) > _ROWS_NAMED else ""
        return f"training example{'s' if len(indices) > 1 else ''} {named}{more}"

    # -- what it gets ----------------------------------------------------------------------------------

    def measure(self, name: str, value: float) -> None:
        """Note a number; the mean since the last log line is logged under ``group/name``."""
        pair = self._measured.setdefault(name, [0.0, 0.0])
        pair[0] += float(value)
        pair[1] += 1

    def take_measured(self) -> dict[str, float]:
        """Return the means of what was noted, and forget them."""
        means = {name: total / count for name, (total, count) in sorted(self._measured.items())}
        self._measured.clear()
        return means

    def measured(self) -> dict[str, list[float]]:
        """Return sums and counts of what was noted since the last log line."""
        return {name: list(pair) for name, pair in self._measured.items()}

    def restore_measured(self, values: Mapping[str, list[float]]) -> None:
        """Take what `measured` returned."""
        self._measured = {name: list(pair) for name, pair in values.items()}

    def derived_seed(self, *names: str) -> int:
        """Return a seed of this training for one purpose."""
        return derive_seed(self.seed, self.algorithm, *names)

    def device(self) -> torch.device:
        """Return the device that this trainer computes on."""
        return resolve_device(self.settings.device)

    def compute_context(self) -> Any:
        """Return the autocast context that the arguments ask for, where the module is now."""
        device = next(self.module.parameters()).device
        if self.arguments.get("fp16"):
            return autocast(device, torch.float16)
        return autocast(device, torch.bfloat16 if argument_rules.uses_bf16(self.arguments, device) else None)

    def train(self) -> TrainResult:
        """Train, or go on from the last checkpoint.

        Returns
        -------
        TrainResult
            With the module in evaluation mode.

        Raises
        ------
        ConfigError, DataError
            When arguments do not fit or there is nothing to learn from.
        RunError
            When the loss or gradient is not a finite number, or the disk is full.
        CheckpointError
            When the directory holds checkpoints of another training.
        trainshed.plan.interrupts.Interrupted
            When a signal came; a checkpoint holds the step in which it did.
        """
        if argument_rules.wants_no_step(self.arguments):
            return TrainResult(float("nan"))
        self._check_data()
        self._measured.clear()
        with contextlib.ExitStack() as stack:
            if self.device().type == "cpu":
                keep_freed_memory()
                stack.enter_context(_young_garbage())
            stack.enter_context(isolated_random_state())
            stack.enter_context(_restored_verbosity())
            stop = self.settings.stop or stack.enter_context(StopRequest().listening())
            stack.enter_context(stop.graceful())
            loop = self._loop(stack, stop)
            self.before_training(loop)
            loop.go(self._fingerprint(), resume=self.settings.resume)
            return self._result(loop)

    def make_arguments(self, values: Mapping[str, Any], directory: Path) -> Any:
        """Return the library's arguments, of `arguments_class`."""
        made = argument_rules.make_arguments(
            values,
            directory=directory,
            device=self.settings.device,
            seed=self.derived_seed(),
            kind=load_attribute(self.arguments_class),
        )
        if self.settings.project:
            made.project = self.settings.project
        made.run_name = made.run_name or self.settings.name
        return made

    # -- inside ----------------------------------------------------------------------------------------

    def _check_data(self) -> None:
        if not len(self.train_data()):
            raise DataError("there is nothing to train on: the dataset is empty", where=self.algorithm)
        strategy = self.arguments.get("eval_strategy", "no")
        if getattr(strategy, "value", strategy) != "no" and not self.eval_data():
            raise ConfigError(
                "there is no data to evaluate on while training",
                where="training.eval_strategy",
                fix="give an evaluation dataset (data.validation_fraction: 0.1 holds rows out), or "
                "eval_strategy: no",
            )
        if not any(parameter.requires_grad for parameter in self.module.parameters()):
            raise ConfigError("every weight is frozen: there is nothing to train", where=self.algorithm)

    def _loop(self, stack: contextlib.ExitStack, stop: StopRequest) -> ExactTraining:
        given = self.arguments.get("output_dir")
        directory = self.settings.directory or (Path(given) if given else None)
        values = dict(self.arguments)
        if directory is None:
            if not self.arguments.get("load_best_model_at_end"):
                values["save_strategy"] = "no"
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trainshed-")))
        made = self.make_arguments(values, directory)
        saves = str(getattr(made.save_strategy, "value", made.save_strategy)) != "no"
        progress = ProgressCallback(self.settings.name, self.settings)
        stack.callback(progress.close)
        callbacks: list[TrainerCallback] = [*self.callbacks, progress, StopCallback(stop, saves=saves)]
        callbacks += tracker_callbacks(self.settings)
        if self.settings.metrics is not None:
            callbacks.append(MetricsCallback(self.settings.metrics))
        stack.callback(
            _undo_changes, self.module, getattr(getattr(self.module, "config", None), "use_cache", None)
        )
        return self.make_loop(made, callbacks)

    def _fingerprint(self) -> str:
        """Return what recognises this training: first weights, data, arguments that decide, and seed."""
        return digest_text(
            canonical_json(
                {
                    "weights": weights_hash(self.module),
                    "trainable": [name for name, p in self.module.named_parameters() if p.requires_grad],
                    "examples": len(self.train_data()),
                    "arguments": argument_rules.deciding_arguments(self.arguments),
                    "parameters": self.deciding_parameters(),
                    "seed": self.seed,
                    "algorithm": self.algorithm,
                }
            )
        )

    def _result(self, loop: ExactTraining) -> TrainResult:
        history = []
        for row in loop.state.log_history:
            named = group_names(row)
            if named.keys() - {"train/epoch"}:
                history.append({"step": row["step"], **named})
        steps, loss = loop.state.global_step, loop.mean_loss()
        metrics = {"train/loss": loss, "train/steps": float(steps)}
        if loop.state.best_metric is not None:
            metrics["eval/best"] = float(loop.state.best_metric)
        return TrainResult(loss, metrics, steps, history)


def _undo_changes(module: nn.Module, use_cache: Any) -> None:
    """Take back what the library changes on a module: its autocast wrapper, its cache setting, its mode."""
    for part in (module, getattr(module, "module", None)):
        if isinstance(part, nn.Module) and part.__dict__.pop("_original_forward", None) is not None:
            part.__dict__.pop("forward", None)
    config = getattr(module, "config", None)
    if config is not None and use_cache is not None:
        config.use_cache = use_cache
    module.eval()


@contextlib.contextmanager
def _young_garbage() -> Iterator[None]:
    """Collect garbage only among what is made from here on.

    The library asks for a collection when a training starts, to free an accelerator's memory; on a CPU it
    walks 0.25 s over what imports have made.
    """
    if gc.get_freeze_count():  # somebody else's decision
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _restored_verbosity() -> Iterator[None]:
    before = logging.get_verbosity()
    try:
        yield
    finally:
        logging.set_verbosity(before)
