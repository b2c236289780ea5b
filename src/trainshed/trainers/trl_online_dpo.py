"""TRL's online DPO trainer, mended.

What TRL 1.16 does otherwise, and why it is changed here:

- its gradient is the sum over the micro-batches of an optimizer step, of which only the loss that it reports
  is divided; here the gradient is the mean over the pairs of the step, however it was divided;
- of two completions with the same reward it takes the first for the better one; here such a pair teaches
  nothing, see ``ties``;
- it samples in training mode and from the global random generator; here in evaluation mode and from a seed of
  the step, so that a resumed training, and one with evaluations in between, ends with the same weights;
- it leaves out the tokens that a tokenizer puts before a plain prompt, such as the one that begins a text;
- it samples from the whole prompt and learns from one cut to ``max_length``; here prompts that do not fit are
  an error before the training;
- it pads on the left and lets models count positions from the padding; here positions are told;
- it counts the padding after a completion in the KL and the entropy that it reports, and forgets its
  measurements in checkpoints; here they are those of the other trainers from rewards;
- a list of several ``beta`` is an error in its first step, and it has no evaluation at all.

Importing this file imports TRL.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from trl.experimental.online_dpo import OnlineDPOTrainer as TRLOnlineDPOTrainer
from trl.experimental.utils import truncate_right
from trl.models.utils import unwrap_model_for_generation

from trainshed.data.prompts import Prompt, as_prompts
from trainshed.policy.losses import token_log_probs
from trainshed.policy.model import completion_logits
from trainshed.policy.preferences import preference_loss
from trainshed.policy.rollouts import prompt_ids
from trainshed.policy.sampling import Completions, pad_left
from trainshed.trainers.trl_sampled import SampledLoop, sampling_from


class MendedOnlineDPOTrainer(SampledLoop, TRLOnlineDPOTrainer):
    """TRL's trainer with the changes that the module tells."""

    # `compute_loss` divides by everything that the optimizer step sees
    loss_is_scaled_for_ga: Any = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.args.use_vllm:
            # TRL sets it on the model, where it stays
            self.generation_config.cache_implementation = self.args.cache_implementation
        self._micro_batch = 0

    @property
    def beta(self) -> float:
        """How strongly the reference holds in this epoch."""
        if not isinstance(self._beta, list):
            return float(self._beta)
        return float(self._beta[min(int(self.state.epoch or 0), len(self._beta) - 1)])

    # -- batches ---------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the micro-batches of one optimizer step, and how many prompts they have."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._micro_batch = 0
        total = torch.tensor(float(sum(len(batch["prompt"]) for batch in samples)), device=device)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, "sum")
        return samples, total

    def _generate(self, model: nn.Module, prompts: list[Any], images: Any = None) -> Any:
        """Sample two completions of each prompt: all first ones, then all second ones."""
        if images is not None:
            return super()._generate(model, prompts, images)
        ids, mask = pad_left(
            [prompt_ids(self.processing_class, Prompt(prompt)) for prompt in prompts],
            self.processing_class.pad_token_id,
            self.args.device,
        )
        ids, mask = ids.repeat(2, 1), mask.repeat(2, 1)
        with (
            unwrap_model_for_generation(
                model, self.accelerator, gather_deepspeed3_params=self.args.ds3_gather_for_generation
            ) as unwrapped,
            torch.no_grad(),
        ):
            found = unwrapped.generate(
                input_ids=ids, attention_mask=mask, generation_config=self.generation_config
            )
        new, inside = truncate_right(
            found[:, ids.shape[1] :], self.eos_token_ids, self.processing_class.pad_token_id
        )
        return ids, mask, new, inside, None

    def _rollout(self, model: nn.Module, prompts: list[Any]) -> Completions:
        """Return two completions of each prompt ``[2n, ...]``."""
        seed = self.draw_seed(str(self._micro_batch), training=True)
        self._micro_batch += 1
        with sampling_from(model, seed):
            made = self._generate_vllm(prompts) if self.args.use_vllm else self._generate(model, prompts)
        ids, mask, new, inside = made[:4]
        ends = torch.tensor(self.eos_token_ids, device=new.device)
        ended = (torch.isin(new, ends) & inside.bool()).any(1)
        return Completions(torch.cat([ids, new], 1), torch.cat([mask, inside], 1), inside.bool(), ended)

    # -- loss ------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Do one micro-batch, as the library does."""
        return Trainer.training_step(self, model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's part of the mean loss over the pairs of the optimizer step."""
        names = list(inputs)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
        prompts = as_prompts(rows, "the batch")
        done = self._rollout(model, [prompt.prompt for prompt in prompts])
        judged = self.owner.judge([*prompts, *prompts], done)
        scores = torch.tensor(judged.totals, dtype=torch.float32, device=done.mask.device)
        if self.args.missing_eos_penalty is not None:
            scores = scores - self.args.missing_eos_penalty * (~done.ended).float()
        log_probs = self._log_probs(model, done)
        with torch.no_grad():
            reference = self._log_probs(self.ref_model, done)
        ratios = log_probs - reference
        losses = self._pair_losses(ratios, scores, len(prompts))
        self._note(judged, done, scores, ratios.detach(), log_probs.detach())
        # gradients are averaged over processes, so each one's part counts as often as there are processes
        loss = losses.sum() / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.args.world_size
        return (loss, None) if return_outputs else loss

    def _log_probs(self, model: nn.Module, done: Completions) -> Tensor:
        """Return the log-probabilities of completions ``[2n]``, in nats."""
        logits, _ = completion_logits(model, done.input_ids, done.attention_mask, done.mask.shape[1])
        return (token_log_probs(logits, done.tokens) * done.mask).sum(1)

    def _pair_losses(self, ratios: Tensor, scores: Tensor, count: int) -> Tensor:
        """Return the loss of each pair ``[n]``, 0 where neither completion is the better one."""
        first, second = scores.split(count)
        wins = first >= second
        one, other = ratios.split(count)
        chosen, rejected = torch.where(wins, one, other), torch.where(wins, other, one)
        if self.args.loss_type == "ipo":
            losses = (chosen - rejected - 1 / (2 * self.beta)) ** 2
        else:
            losses = preference_loss(chosen, rejected, beta=self.beta)
        tied = first == second
        taught = ~tied if self.owner.parameters.ties == "skip" else torch.ones_like(tied)
        self.owner.measure("online_dpo/tied", tied.float().mean().item())
        if taught.any():
            apart = (chosen - rejected).detach()[taught]
            self.owner.measure("online_dpo/accuracy", (apart > 0).float().mean().item())
            self.owner.measure("online_dpo/margin", self.beta * apart.mean().item())
        return losses * taught

    def _note(
        self, judged: Any, done: Completions, scores: Tensor, ratios: Tensor, log_probs: Tensor
    ) -> None:
        """Measure what completions are worth and how far the policy is from its reference."""
        for name, value in judged.means().items():
            self.owner.measure(name, value)
        told = {
            "score": scores.mean(),
            "kl": ratios.mean(),
            "entropy": -log_probs.mean(),
            "length": done.mask.sum(1).float().mean(),
            "without_eos": 1.0 - done.ended.float().mean(),
        }
        for name, value in told.items():
            self.owner.measure(f"online_dpo/{name}", value.item())

    # -- logging and evaluation ------------------------------------------------------------------------

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log, save and evaluate as the library does: what is measured is logged with the loss."""
        Trainer._maybe_log_save_evaluate(self, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the trainer's own evaluation under the names that the library expects."""
        found = self.owner.evaluate()
        metrics = {"eval_" + name.removeprefix("eval/"): value for name, value in found.items()}
        self.log(dict(found))  # under their own names; the library looks for its best one under `eval_`
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
