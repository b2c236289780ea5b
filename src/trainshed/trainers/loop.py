"""The loop of `transformers.Trainer`, made exact where it is not.

What this adds: batches that depend on the seed and the epoch alone; a loss that is the mean over everything
an optimizer step saw, however it was divided into micro-batches and processes; a stop at the first loss or
gradient that is no finite number, before it reaches a weight; whole checkpoints (`checkpoints`) that also
hold the sums behind the logged means, so that a resumed training reports what an undisturbed one would.

Weights are safetensors. The states of optimizer, scheduler and random generators are written with
`torch.save`, as the library does, and read with ``weights_only=True``, which runs no code. Left out: what is
trained, and on what (see `transformers_family`).
"""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import rotate_checkpoints

from trainshed.errors import CheckpointError
from trainshed.files import read_json, write_json
from trainshed.models.quiet import no_library_bars
from trainshed.trainers import checkpoints
from trainshed.trainers.batching import EpochBatches, EpochLoader

if TYPE_CHECKING:
    from trainshed.trainers.transformers_family import TransformersTrainer

_STATE, _SUMS = "trainer_state.json", "sums.json"


class Loop(transformers.Trainer):
    """One training of one trainer's module.

    Parameters
    ----------
    owner
        Gives module, data, batches and loss.
    args
        The library's arguments.
    callbacks
        What happens besides.
    """

    # `compute_loss` divides by everything that the optimizer step sees
    loss_is_scaled_for_ga = True

    def __init__(self, owner: "TransformersTrainer", args: TrainingArguments, callbacks: list[Any]) -> None:
        self.owner = owner
        self.fingerprint = ""
        self.sums: dict[str, Any] = {"loss": 0.0, "window": 0.0, "window_start": 0, "measured": {}}
        super().__init__(
            model=owner.module,
            args=args,
            train_dataset=owner.train_data(),
            eval_dataset=owner.eval_data(),
            data_collator=owner.collate,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    # -- data and loss ---------------------------------------------------------------------------------

    def get_train_dataloader(self) -> EpochLoader:
        """Return the batches of this process; placing them on the device is left to the training step."""
        data: Any = self.train_dataset
        args = self.args
        strategy = str(getattr(args.train_sampling_strategy, "value", args.train_sampling_strategy))
        batches = EpochBatches(
            len(data),
            self._train_batch_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            lengths=None if strategy == "sequential" else self.owner.lengths(data),
            shuffle=strategy != "sequential",
            drop_last=args.dataloader_drop_last,
            rank=args.process_index,
            world=args.world_size,
        )
        return EpochLoader(
            data,
            batch_sampler=batches,
            collate_fn=self.owner.collate,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the micro-batches of one optimizer step; a trainer may put its own in their place."""
        samples, total = super().get_batch_samples(epoch_iterator, num_batches, device)
        own = self.owner.step_batches(len(samples)) if samples else None
        return (samples, total) if own is None else (own, self._get_num_items_in_batch(own, device))

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """Return what the losses of one optimizer step are divided by, over all processes."""
        if not batch_samples:
            return None
        total = torch.tensor(
            float(sum(self.owner.loss_weight(batch) for batch in batch_samples)), device=device
        )
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, "sum")
        return total

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return this micro-batch's part of the mean loss of the optimizer step."""
        with self.accelerator.autocast():
            loss = self.owner.loss_sum(model, inputs)
        total = torch.as_tensor(num_items_in_batch, device=loss.device)
        # gradients are averaged over processes, so each one's part counts as often as there are processes
        return loss / total.clamp(min=torch.finfo(torch.float32).tiny) * self.args.world_size

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Do one micro-batch, and stop the training when its loss is not a finite number."""
        loss = self._own_backward(model, inputs, num_items_in_batch)
        if loss is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            raise checkpoints.not_finite("loss", value, self.state.global_step + 1, self._kept())
        self.sums["loss"] += value
        self.sums["window"] += value
        return loss

    def _own_backward(self, model: nn.Module, inputs: Any, total: Any) -> Tensor | None:
        """Let the trainer add the gradients itself; None when it leaves that to the library.

        With several processes it is left to the library, which sums gradients once for each backward pass.
        """
        if self.args.world_size > 1:
            return None
        model.train()
        return self.owner.backward(
            model, self._prepare_inputs(inputs), float(total), backward=self.accelerator.backward
        )

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient's norm, and stop before the weights change when it is not a finite number."""
        norm = super()._get_grad_norm(model, grad_norm)
        value = float(norm)
        # with float16, the library skips such steps and lowers its scale
        if not math.isfinite(value) and not self.args.fp16:
            raise checkpoints.not_finite("gradient", value, self.state.global_step + 1, self._kept())
        return norm

    def _kept(self) -> Path | None:
        return self.owner.settings.directory

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

    def mean_loss(self) -> float:
        """Return the mean training loss over all steps, those before an interruption included."""
        steps = self.state.global_step
        return self._over_processes(self.sums["loss"]) / steps if steps else math.nan

    # -- evaluation ------------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the trainer's own evaluation under the names that the library expects."""
        found = self.owner.evaluate()
        metrics = {"eval_" + name.removeprefix("eval/"): value for name, value in found.items()}
        self.log(dict(metrics))
        control: Any = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics

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
        sums = {name: self._over_processes(self.sums[name]) for name in ("loss", "window")}
        if self.args.should_save:
            write_json(path / _SUMS, {**self.sums, **sums, "measured": self.owner.measured()})
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
