"""What makes a training of the `transformers` library exact and safe, whatever its loss.

`ExactTraining` stands before `transformers.Trainer`, or a class that derives from it, among the bases of a
loop. It stops at the first loss or gradient that is no finite number, before it reaches a weight, and names
the rows; it writes whole checkpoints (`checkpoints`) that also hold the sums behind the logged means, so that
a resumed training reports what an undisturbed one would.

Weights are safetensors. The states of optimizer, scheduler and random generators are written with
`torch.save`, as the library does, and read with ``weights_only=True``, which runs no code. Left out: batches
and losses (see `loop`, and TRL's classes in `trl_family`).
"""

import math
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerState
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from trainshed.errors import CheckpointError, ConfigError, RunError, did_you_mean
from trainshed.files import read_json, write_json
from trainshed.models.quiet import no_library_bars
from trainshed.trainers import checkpoints

if TYPE_CHECKING:
    from trainshed.trainers.looped import LoopedTrainer

#: stands for `transformers.Trainer`, which follows among the bases of a loop
_Library: Any = object

#: what the library says about its own clock, by which nothing is the best
_CLOCK = ("runtime", "per_second", "epoch", "preparation_time")
_STATE, _SUMS, _BUFFERS = "trainer_state.json", "sums.json", "buffers.safetensors"


class ExactTraining(_Library):
    """The checkpoints, means and guards of a loop; call `prepare` before the library's ``__init__``."""

    owner: "LoopedTrainer"
    fingerprint: str
    sums: dict[str, Any]
    _in_step: tuple[int, int]

    def prepare(self, owner: "LoopedTrainer") -> None:
        """Say whose training this is."""
        self.owner, self.fingerprint = owner, ""
        self.sums = {"loss": 0.0, "window": 0.0, "window_start": 0, "measured": {}}
        self._in_step = (-1, 0)

    # -- loss and gradient -----------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Do one micro-batch, and stop the training when its loss is not a finite number."""
        step, done = self._in_step
        self._in_step = (self.state.global_step, done + 1 if step == self.state.global_step else 1)
        loss = self.micro_batch(model, inputs, num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            raise self._not_finite("loss", value, self._in_step[1] - 1, self._in_step[1])
        self.sums["loss"] += value
        self.sums["window"] += value
        return loss

    def micro_batch(self, model: nn.Module, inputs: Any, num_items_in_batch: Any) -> Tensor:
        """Add the gradients of one micro-batch and return its part of the step's loss."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient's norm, and stop before the weights change when it is not a finite number."""
        norm = super()._get_grad_norm(model, grad_norm)
        value = float(norm)
        # with float16, the library skips such steps and lowers its scale
        if not math.isfinite(value) and not self.args.fp16:
            raise self._not_finite("gradient", value, 0, self._in_step[1])
        return norm

    def _not_finite(self, what: str, value: float, first: int, end: int) -> RunError:
        """Return the error for a number of this step, made by its micro-batches from ``first`` to ``end``."""
        return checkpoints.not_finite(
            what,
            value,
            self.state.global_step + 1,
            self.owner.settings.directory,
            rows=self.owner.describe_rows(self._rows(first, end)),
        )

    def _rows(self, first: int, end: int) -> list[int]:
        """Return the indices of the examples in some micro-batches of this step, in this process."""
        loader: Any = self.callback_handler.train_dataloader
        size = self.args.gradient_accumulation_steps
        epoch, step = divmod(self.state.global_step, -(-len(loader) // size))
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        batches = islice(iter(loader.batch_sampler), step * size + first, step * size + end)
        return [int(index) for batch in batches for index in batch]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the exact mean loss since the last time and what the trainer measured."""
        if "loss" in logs:
            step, start = self.state.global_step, self.sums["window_start"]
            logs["loss"] = self._over_processes(self.sums["window"]) / max(step - start, 1)
            self.sums["window"], self.sums["window_start"] = 0.0, step
            logs.update(self.owner.take_measured())
        super().log(logs, start_time)

    def _over_processes(self, value: float) -> float:
        if self.args.world_size <= 1:
            return value
        number = torch.tensor(value, dtype=torch.float64, device=self.args.device)
        return float(self.accelerator.reduce(number, "mean"))

    def counts(self) -> dict[str, Any]:
        """Return what the library counts beside its own state, for a checkpoint; JSON-able."""
        return {}

    def restore_counts(self, values: dict[str, Any]) -> None:
        """Take what `counts` returned."""

    def buffers(self) -> dict[str, Tensor]:
        """Return tensors that the library holds between two steps, for a checkpoint."""
        return {}

    def restore_buffers(self, values: dict[str, Tensor]) -> None:
        """Take what `buffers` returned."""

    def mean_loss(self) -> float:
        """Return the mean training loss over all steps, those before an interruption included."""
        steps = self.state.global_step
        return self._over_processes(self.sums["loss"]) / steps if steps else math.nan

    # -- checkpoints -----------------------------------------------------------------------------------

    def go(self, fingerprint: str, *, resume: bool) -> None:
        """Train from the start, or from the newest intact checkpoint of this training.

        Parameters
        ----------
        fingerprint
            What recognises this training.
        resume
            Whether to look for a checkpoint; otherwise those that are there are deleted.
        """
        self.fingerprint = fingerprint
        root = Path(self.args.output_dir)
        found = None
        with self.accelerator.main_process_first():
            if resume:
                found = checkpoints.latest_checkpoint(root, fingerprint)
            elif self.args.should_save:
                checkpoints.remove_checkpoints(root)
        if found is None:
            self.train()
            return
        sums = read_json(found / _SUMS)
        self.owner.restore_measured(sums.pop("measured"))
        self.restore_counts(sums.pop("counts"))
        if (found / _BUFFERS).is_file():
            self.restore_buffers(load_file(found / _BUFFERS))
        self.sums = {**sums, "measured": {}}
        self.owner.load_state(found)
        state = TrainerState.load_from_json(str(found / _STATE))
        control = state.stateful_callbacks.get("TrainerControl", {})
        stopped = isinstance(control, dict) and control.get("args", {}).get("should_training_stop")
        if stopped or state.global_step >= state.max_steps:
            self._restore_end(found, state)
        else:
            self._repair_best(found, state)
            self.train(resume_from_checkpoint=str(found))

    def _restore_end(self, found: Path, state: TrainerState) -> None:
        """Take the weights of a training whose last step is in a checkpoint."""
        self._load_from_checkpoint(str(found))
        self.state = state
        self._set_best(state)
        if self.args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._load_best_model()

    def _set_best(self, state: TrainerState) -> None:
        """Say where the best checkpoint lies now: the directory may have moved since."""
        best = state.best_global_step
        path = Path(self.args.output_dir) / f"checkpoint-{best}"
        state.best_model_checkpoint = str(path) if best and path.is_dir() else None

    def _repair_best(self, found: Path, state: TrainerState) -> None:
        before = state.best_model_checkpoint
        self._set_best(state)
        if state.best_model_checkpoint != before and self.args.should_save:
            state.save_to_json(str(found / _STATE))
            (found / checkpoints.MANIFEST).unlink()
            checkpoints.write_manifest(found, self.fingerprint)

    def _load_best_model(self) -> None:
        """Load the weights of the best checkpoint after checking them."""
        path = Path(self.state.best_model_checkpoint or "")
        wrong = checkpoints.damage(path)
        if wrong is not None:
            raise CheckpointError(
                f"the best checkpoint cannot be used: {wrong}",
                where=str(path),
                fix="delete it and run again, or set training.load_best_model_at_end: false",
            )
        super()._load_best_model()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether this checkpoint is the best so far, by the metric that the user names."""
        wanted = self.args.metric_for_best_model
        if wanted is not None and f"eval_{wanted.removeprefix('eval_')}" not in metrics:
            self.args.metric_for_best_model = self._measured_name(wanted, metrics)
        return bool(super()._determine_best_metric(metrics=metrics, trial=trial))

    def _measured_name(self, wanted: str, metrics: dict[str, float]) -> str:
        """Return the library's name of a metric that is written as ``metrics.jsonl`` has it."""
        known = {name.removeprefix("eval_").replace("/", "_"): name for name in metrics}
        plain = wanted.removeprefix("eval_").replace("/", "_")
        if plain not in known:
            raise ConfigError(
                f"the evaluation measures no {wanted!r}",
                where="training.metric_for_best_model",
                fix=did_you_mean(plain, sorted(name for name in known if not name.endswith(_CLOCK))),
            )
        return known[plain]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a whole checkpoint, give it its name, then delete the ones that are too many."""
        self.store_flos()
        root = Path(self.args.output_dir)
        final = root / f"checkpoint-{self.state.global_step}"
        partial = root / f".{final.name}.partial"
        with checkpoints.write_errors(final):
            if self.args.should_save:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            try:
                self._write_checkpoint(partial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._set_best_with(final)
                    self.state.save_to_json(str(partial / _STATE))
                    checkpoints.write_manifest(partial, self.fingerprint)
                    checkpoints.install_checkpoint(partial, final)
                    rotate_checkpoints(
                        str(root), self.args.save_total_limit, self.state.best_model_checkpoint
                    )
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(self, path: Path) -> None:
        with no_library_bars():
            self.save_model(str(path), _internal_call=True)
        self.owner.save_state(path)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(path))
            self._save_scaler(str(path))
            self._save_rng_state(str(path))
        buffers = self.buffers()
        if buffers and self.args.should_save:
            save_file(buffers, path / _BUFFERS)
        sums = {name: self._over_processes(self.sums[name]) for name in ("loss", "window")}
        if self.args.should_save:
            write_json(
                path / _SUMS,
                {**self.sums, **sums, "measured": self.owner.measured(), "counts": self.counts()},
            )
            stateful = [*self.callback_handler.callbacks, self.control]
            states: dict[str, Any] = {}
            for callback in stateful:
                if isinstance(callback, ExportableState):
                    states.setdefault(type(callback).__name__, []).append(callback.state())
            self.state.stateful_callbacks = {
                name: found[0] if len(found) == 1 else found for name, found in states.items()
            }

    def _set_best_with(self, final: Path) -> None:
        best = self.state.best_global_step
        if best == self.state.global_step:
            self.state.best_model_checkpoint = str(final)
        elif best:
            self._set_best(self.state)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights, and not the library's pickle of its arguments."""
        super()._save(output_dir, state_dict)
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)
