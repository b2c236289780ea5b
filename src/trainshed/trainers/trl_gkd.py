"""TRL's GKD trainer, mended.

What TRL 1.16 does otherwise, and why it is changed here:

- its loss is divided by the tokens of the data, though it is computed on the student's own completions where
  these take their place: a step's weight depended on how long the data's completions were. Here completions
  are sampled before the tokens of an optimizer step are counted, and the loss is the mean over them, however
  the step was divided into micro-batches and processes;
- it samples in training mode, so with dropout wherever ``disable_dropout`` does not reach, and from the
  global random generator; here in evaluation mode, and from a seed of the step;
- it stops completions at the model's end tokens alone; here at the tokenizer's too;
- it takes conversations alone, and pads them on the left without saying so to models that count positions;
  here any prompt with its completion, padded on the right;
- it computes the divergence of every position, prompts and padding among them, before it looks at some, and
  empties the device's cache in every micro-batch; here of the completions alone.

Importing this file imports TRL.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from trl.experimental.gkd import GKDTrainer as TRLGKDTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.sft_trainer import SFTTrainer

from trainshed.policy.sampling import Sampling, sample_completions
from trainshed.trainers.trl_sampled import SampledLoop, sampling_from

_IGNORED = -100

Batch = dict[str, Tensor]


class MendedGKDTrainer(SampledLoop, TRLGKDTrainer):
    """TRL's trainer with the changes that the module tells."""

    # `compute_loss` divides by everything that the optimizer step sees
    loss_is_scaled_for_ga: Any = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        ends = self.generation_config.eos_token_id
        found = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        tokenizer = self.processing_class
        if tokenizer.eos_token_id is not None:
            found.append(tokenizer.eos_token_id)
        self.sampling = Sampling(
            max_new_tokens=self.args.max_new_tokens,
            temperature=self.temperature,
            stop_ids=tuple(dict.fromkeys(found)),
            pad_id=tokenizer.pad_token_id,
        )

    # -- batches ---------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """Return the micro-batches of one optimizer step, some with new completions, and their tokens."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        samples = [self._with_completions(batch, number) for number, batch in enumerate(samples)]
        return samples, self._get_num_items_in_batch(samples, device)

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor | None:
        """Return the number of tokens that the losses of one optimizer step look at, over all processes."""
        if not batch_samples:
            return None
        total = sum((batch["labels"][:, 1:] != _IGNORED).sum().to(device) for batch in batch_samples)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, "sum")
        return torch.as_tensor(total)

    def _with_completions(self, batch: Batch, number: int) -> Batch:
        """Return a micro-batch on completions of the student's, of the teacher's, or as it is.

        Which of them is the same in all processes, so that none waits for another.
        """
        step = str(self.state.global_step)
        seed = self.owner.derived_seed("on-policy", step, str(number))
        if random.Random(seed).random() < self.lmbda:
            return self._completed(batch, self.model_wrapped, number)
        return self._completed(batch, self.teacher_model, number) if self.seq_kd else batch

    def _completed(self, batch: Batch, model: nn.Module, number: int) -> Batch:
        lengths = batch["prompt_length"].tolist()
        prompts = [row[:length].tolist() for row, length in zip(batch["input_ids"], lengths, strict=True)]
        options = {"gradient_checkpointing_kwargs": self.args.gradient_checkpointing_kwargs}
        with (
            sampling_from(model),
            unwrap_model_for_generation(model, self.accelerator, **options) as unwrapped,
        ):
            done = sample_completions(
                unwrapped,
                prompts,
                self.sampling,
                seed=self.draw_seed(str(number), training=True),
                batch_size=len(prompts),
            )
        rows = [
            {"input_ids": [*prompt, *tokens[inside].tolist()], "prompt_length": len(prompt)}
            for prompt, tokens, inside in zip(prompts, done.tokens, done.mask, strict=True)
        ]
        made = collator(self.sampling.pad_id)(rows)
        return {name: value.to(done.tokens.device) for name, value in made.items()}

    # -- loss ------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Do one micro-batch; what is sampled was sampled before."""
        return SFTTrainer.training_step(self, model, inputs, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return this micro-batch's part of the mean divergence of the optimizer step, in nats a token."""
        seen = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        looked_at = inputs["labels"][:, 1:] != _IGNORED
        outputs = model(**seen)
        student = outputs.logits[:, :-1][looked_at].float()
        self.teacher_model.eval()
        with torch.no_grad():
            teacher = self.teacher_model(**seen).logits[:, :-1][looked_at].float()
        total = self.generalized_jsd_loss(
            student,
            teacher,
            beta=self.beta,
            temperature=self.owner.parameters.loss_temperature,
            reduction="sum",
        )
        self._note(total.detach(), student.detach(), teacher)
        if num_items_in_batch is None:
            loss = total / max(len(student), 1)
        else:
            # gradients are averaged over processes, so each one's part counts as often as there are processes
            loss = total / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def _note(self, total: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Measure how far the student is from the teacher on these tokens.

        ``teacher_kl`` is KL(teacher, student) in nats a token, ``teacher_agreement`` the share of tokens for
        which both give the most probability to the same.
        """
        log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
        kl = (log_p.exp() * (log_p - log_q)).sum().item()
        agreed = (student.argmax(-1) == teacher.argmax(-1)).sum().item()
        if self.model.training:
            count = max(len(student), 1)
            self._metrics["train"]["teacher_kl"].append(kl / count)
            self._metrics["train"]["teacher_agreement"].append(agreed / count)
        else:
            self.note_evaluated(len(student), loss=total.item(), teacher_kl=kl, teacher_agreement=agreed)


def collator(pad_id: int) -> Callable[[Sequence[dict[str, Any]]], Batch]:
    """Return what makes a batch of rows as `gkd.tokenized_pairs` gives them.

    Its ``input_ids``, ``attention_mask`` and ``labels`` are ``[n, t]``, padded on the right, so that
    positions count from the first token with every model; ``prompt_length`` is ``[n]``.
    """

    def collate(rows: Sequence[dict[str, Any]]) -> Batch:
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, _IGNORED)
        for place, row in enumerate(rows):
            tokens, start = torch.as_tensor(row["input_ids"], dtype=torch.long), row["prompt_length"]
            ids[place, : len(tokens)] = tokens
            mask[place, : len(tokens)] = 1
            labels[place, start : len(tokens)] = tokens[start:]
        lengths = torch.tensor([row["prompt_length"] for row in rows], dtype=torch.long)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "prompt_length": lengths}

    return collate
