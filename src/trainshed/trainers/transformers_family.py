"""The base of trainers with a loss of their own, on the loop of `transformers.Trainer`.

A subclass says what learns, from which data, and what the loss of a batch is. Left out: everything around it
(see `looped`), and the loop itself (see `loop`).
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from trainshed.errors import ConfigError
from trainshed.trainers.base import isolated_random_state
from trainshed.trainers.loop import Loop
from trainshed.trainers.looped import LoopedTrainer


class TransformersTrainer(LoopedTrainer):
    """Trains one module with gradients of its own loss; the parameters are those of `LoopedTrainer`."""

    @abstractmethod
    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Make a batch; tensors in it are moved to the device. It must not draw random numbers."""

    @abstractmethod
    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the weighted sum of the losses of a batch, a number with a gradient.

        Parameters
        ----------
        model
            `module`, perhaps wrapped for several processes: call this one.
        batch
            What `collate` made.
        """

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the sum of the weights in `loss_sum`; the loss of a step is the quotient of their sums."""
        return 1.0

    def backward(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        denominator: float,
        backward: Callable[[Tensor], object],
    ) -> Tensor | None:
        """Add the gradient of ``loss_sum / denominator`` to the parameters, where that can be done in parts.

        Parameters
        ----------
        model, batch
            As for `loss_sum`.
        denominator
            What the sum is divided by.
        backward
            To call with each part of the loss.

        Returns
        -------
        Tensor | None
            The loss without its graph; None (the default) leaves it to the loop.
        """
        return None

    def step_batches(self, count: int) -> list[dict[str, Any]] | None:
        """Return the micro-batches of the next optimizer step where they are made while training.

        Parameters
        ----------
        count
            How many there must be.

        Returns
        -------
        list | None
            They take the place of those that `collate` made; None (the default) keeps those.
        """
        return None

    def lengths(self, data: Sequence[Any]) -> Sequence[int] | None:
        """Return the length of each example, to batch similar ones; None mixes freely."""
        return None

    def make_loop(self, args: TrainingArguments, callbacks: list[TrainerCallback]) -> Loop:
        """Return the loop of one training."""
        return Loop(self, args, callbacks)

    def evaluate(self) -> dict[str, float]:
        """Return the mean loss on the evaluation data as ``eval/loss``."""
        data = self.eval_data()
        if not data:
            raise ConfigError("there is no data to evaluate on", fix="give an evaluation dataset")
        total, weight = 0.0, 0.0

        def add(rows: list[int], batch: dict[str, Any]) -> None:
            nonlocal total, weight
            total += self.loss_sum(self.module, batch).item()
            weight += float(self.loss_weight(batch))

        self.for_batches(data, add)
        return {"eval/loss": total / weight if weight else float("nan")}

    def for_batches(self, data: Sequence[Any], use: Callable[[list[int], dict[str, Any]], None]) -> None:
        """Go through data in batches without gradients, in evaluation mode; nothing is changed.

        Parameters
        ----------
        data
            Examples that `collate` takes; similar lengths come together, the longest first.
        use
            Called with the places of a batch's examples in ``data``, and the batch on the module's device.
        """
        size = int(self.arguments.get("per_device_eval_batch_size", 8))
        lengths = self.lengths(data) or [0] * len(data)
        order = sorted(range(len(data)), key=lambda index: (-lengths[index], index))
        device = next(self.module.parameters()).device
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.no_grad(), isolated_random_state(), self.compute_context():
                for start in range(0, len(order), size):
                    rows = order[start : start + size]
                    batch = self.collate([data[index] for index in rows])
                    use(rows, {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()})
        finally:
            for part, training in modes:
                part.training = training
