"""TRL's distillation trainer, mended.

What TRL 1.16 does otherwise, and why it is changed here:

- it samples in training mode, so with the student's dropout, which is on by default, and from the global
  random generator; here in evaluation mode, and from a seed of the step, so that an evaluation in between
  changes nothing and is the same each time;
- it pads prompts on the left and lets models count positions from the padding, other than where it samples:
  those that learn a vector for each position were taught at the wrong ones; here positions are told;
- it takes for the loss of an evaluation the mean of its batches' means; here the mean over tokens.

Importing this file imports TRL.
"""

import inspect
from typing import Any

from torch import Tensor
from trl.trainer.distillation_trainer import DistillationTrainer as TRLDistillationTrainer

from trainshed.policy.model import has_adapters
from trainshed.trainers.trl_sampled import SampledLoop, sampling_from


class MendedDistillationTrainer(SampledLoop, TRLDistillationTrainer):
    """TRL's trainer with the changes that the module tells."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """Sample completions from the student as it is."""
        seed = self.draw_seed("completions", training=self.model.training)
        with sampling_from(self.model_wrapped, seed):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_last_hidden_state(
        self,
        unwrapped_model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        **fields: Any,
    ) -> Tensor:
        """Return the states ``[n, t, h]`` that predict the last ``t`` tokens."""
        if fields:  # of images, whose models count positions themselves
            return super()._get_last_hidden_state(
                unwrapped_model, input_ids, attention_mask, logits_to_keep, **fields
            )
        inner = unwrapped_model.get_base_model() if has_adapters(unwrapped_model) else unwrapped_model
        body = inner.base_model
        more: dict[str, Any] = {"use_cache": False}
        if "position_ids" in inspect.signature(type(body).forward).parameters:
            more["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        states: Tensor = body(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
        return states[:, -logits_to_keep - 1 : -1]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's part of the mean divergence of the optimizer step, in nats a token."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.model.training:
            loss = found[0] if return_outputs else found
            count = int(inputs["completion_mask"].sum())
            self.note_evaluated(count, loss=loss.item() * count)
        return found
