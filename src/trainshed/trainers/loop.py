"""The loop of our own losses, on `transformers.Trainer`, made exact where the library is not.

What this adds: batches that depend on the seed and the epoch alone, and a loss that is the mean over
everything an optimizer step saw, however it was divided into micro-batches and processes. Left out:
checkpoints and guards (see `exact`), what is trained, and on what (see `transformers_family`).
"""

from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from trainshed.trainers.batching import EpochBatches, EpochLoader
from trainshed.trainers.exact import ExactTraining

if TYPE_CHECKING:
    from trainshed.trainers.transformers_family import TransformersTrainer


class Loop(ExactTraining, transformers.Trainer):
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
    owner: "TransformersTrainer"

    def __init__(self, owner: "TransformersTrainer", args: TrainingArguments, callbacks: list[Any]) -> None:
        self.prepare(owner)
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

    def micro_batch(self, model: nn.Module, inputs: Any, num_items_in_batch: Any) -> Tensor:
        """Add the gradients of one micro-batch, by the trainer's own backward pass where it has one.

        With several processes it is left to the library, which sums gradients once for each backward pass.
        """
        loss = None
        if self.args.world_size == 1:
            model.train()
            loss = self.owner.backward(
                model,
                self._prepare_inputs(inputs),
                float(num_items_in_batch),
                backward=self.accelerator.backward,
            )
        return super().micro_batch(model, inputs, num_items_in_batch) if loss is None else loss

    # -- evaluation ------------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the trainer's own evaluation under the names that the library expects."""
        found = self.owner.evaluate()
        metrics = {"eval_" + name.removeprefix("eval/"): value for name, value in found.items()}
        self.log(dict(found))  # under their own names; the library looks for its best one under `eval_`
        control: Any = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics
