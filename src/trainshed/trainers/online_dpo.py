"""Online direct preference optimization (arXiv 2402.04792): DPO on pairs that the policy has just sampled and
rewards have judged.

Left out: sampling and what TRL's loop gets wrong (`trl_online_dpo`), rewards (`trainshed.rewards`), and
everything around them (`trl_online`, `trl_family`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import TrainerCallback

from trainshed.config.trainers.online_dpo import OnlineDPOParameters
from trainshed.config.trl import TRLParameters
from trainshed.data.prompts import Prompt, as_prompts
from trainshed.errors import ConfigError
from trainshed.models.causal_lm import load_causal_lm
from trainshed.policy.losses import token_log_probs
from trainshed.policy.model import completion_logits
from trainshed.policy.rollouts import prompt_ids
from trainshed.policy.sampling import Completions, Sampling, sample_completions
from trainshed.rewards.functions import Judged
from trainshed.trainers.arguments import default_of
from trainshed.trainers.base import TrainResult, isolated_random_state
from trainshed.trainers.exact import ExactTraining
from trainshed.trainers.trl_family import TRLTrainer, first_weights, left_as_it_was
from trainshed.trainers.trl_online import RewardedTrainer
from trainshed.trainers.trl_sampled import check_prompts, room_for_prompts, sampling_from


class OnlineDPOTrainer(RewardedTrainer):
    """Trains a policy on prompts and rewards; the parameters are those of `RewardedTrainer`, and:

    Parameters
    ----------
    reference_model
        What the policy is kept near; a copy of the policy as it is given when None, its adapters included.
    """

    algorithm: ClassVar[str] = "online_dpo"
    trl_class: ClassVar[str] = "trainshed.trainers.trl_online_dpo:MendedOnlineDPOTrainer"
    arguments_class: ClassVar[str] = "trl.experimental.online_dpo:OnlineDPOConfig"
    parameters_class: ClassVar[type[TRLParameters]] = OnlineDPOParameters

    def __init__(
        self, model: Any, tokenizer: Any, train_dataset: Any, *, reference_model: Any = None, **more: Any
    ) -> None:
        super().__init__(model, tokenizer, train_dataset, **more)
        first, self._first = self._first, None  # this trainer of TRL takes its reference as an object
        named = self.parameters.reference_model
        if reference_model is None and named is not None:
            reference_model, _ = load_causal_lm(named)
        reference = first or first_weights(model) if reference_model is None else reference_model
        self.reference_model = reference.eval().requires_grad_(False)
        new, longest = self.argument("max_new_tokens"), self.argument("max_length")
        if new >= longest:
            raise ConfigError(
                f"completions of {new} tokens leave no room for a prompt in {longest}",
                where="training.max_length",
                fix=f"more than {new}, or a smaller training.max_new_tokens",
            )
        room = min(n for n in (room_for_prompts(model, new, "training.max_new_tokens"), longest - new) if n)
        for what, rows in (("the training prompts", self._train), ("the validation prompts", self._eval)):
            check_prompts(tokenizer, as_prompts(rows or (), what), room, what)

    def argument(self, name: str) -> Any:
        """Return what an argument of TRL's is, as given or by default."""
        return self.arguments.get(name, default_of(self.arguments_class, name))

    def objects(self) -> dict[str, Any]:
        """Return the rewards, the reference, and what makes batches."""
        return {
            **super().objects(),
            "ref_model": self.reference_model,
            "data_collator": batch_of,
        }

    def deciding_parameters(self) -> dict[str, Any]:
        """Return the algorithm's own parameters; rewards are recognised by their names and weights."""
        return {**super().deciding_parameters(), "rewards": self.rewards.weights}

    def make_loop(self, args: Any, callbacks: list[TrainerCallback]) -> ExactTraining:
        """Return TRL's trainer, made exact."""
        args.reward_weights = list(self.rewards.weights.values())
        return TRLTrainer.make_loop(self, args, callbacks)

    def train(self) -> TrainResult:
        """Train, or go on from the last checkpoint; see `LoopedTrainer.train`."""
        place = next(self.reference_model.parameters()).device
        try:
            with left_as_it_was(self.reference_model):
                return super().train()
        finally:
            self.reference_model.__dict__.pop("_original_forward", None)
            self.reference_model.to(place)

    def evaluate(self) -> dict[str, float]:
        """Return what completions of the held-out prompts are worth; the same draw each time.

        Returns
        -------
        dict
            ``eval/score`` (weighted sum of the rewards), ``eval/reward_<name>``, ``eval/length`` in tokens,
            ``eval/without_eos``, a share, and ``eval/kl`` to the reference, in nats a completion.

        Raises
        ------
        ConfigError
            When there is no data to evaluate on.
        """
        if not self._eval:
            raise ConfigError("there is no data to evaluate on", fix="give an evaluation dataset")
        prompts = as_prompts(self._eval, "the validation prompts")
        size = int(self.arguments.get("per_device_eval_batch_size", 8))
        device = next(self.model.parameters()).device
        self.reference_model.to(device)
        with isolated_random_state(), self.compute_context(), sampling_from(self.model), torch.no_grad():
            done = sample_completions(
                self.model,
                [prompt_ids(self.tokenizer, prompt) for prompt in prompts],
                self.sampling(),
                seed=self.derived_seed("evaluate"),
                batch_size=size,
            )
            kl = sum(
                ((_log_probs(self.model, part) - _log_probs(self.reference_model, part)) * part.mask).sum()
                for part in _parts(done, size)
            )
        judged = self.judge(prompts, done)
        rewards = {name.replace("/", "_", 1): value for name, value in judged.means().items()}
        return {
            "eval/score": sum(judged.totals) / len(judged.totals),
            "eval/kl": float(kl) / len(prompts),
            "eval/length": done.mask.sum(1).float().mean().item(),
            "eval/without_eos": 1.0 - done.ended.float().mean().item(),
            **{f"eval/{name}": value for name, value in rewards.items()},
        }

    def sampling(self) -> Sampling:
        """Return how completions are sampled when evaluating: as while training, without its extras."""
        return Sampling(
            max_new_tokens=self.argument("max_new_tokens"),
            temperature=self.argument("temperature"),
            top_p=self.argument("top_p"),
            top_k=self.argument("top_k"),
            stop_ids=stop_tokens(self.model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
        )

    def judge(self, prompts: Sequence[Prompt], done: Completions) -> Judged:
        """Ask the rewards about completions of prompts."""
        texts: list[Any] = done.texts(self.tokenizer)
        if prompts[0].conversational:
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        names = sorted({name for prompt in prompts for name in prompt.columns})
        columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
        return self.rewards([prompt.prompt for prompt in prompts], texts, **columns)


def batch_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns; TRL's own takes a column such as ``my_labels`` for tokens."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def stop_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that end a completion, the tokenizer's and those of the model."""
    ends = model.generation_config.eos_token_id
    found = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(dict.fromkeys([*own, *found]))


def _log_probs(model: Any, done: Completions) -> Tensor:
    length = done.mask.shape[1]
    logits, _ = completion_logits(model, done.input_ids, done.attention_mask, length)
    return token_log_probs(logits, done.tokens)


def _parts(done: Completions, size: int) -> list[Completions]:
    return [
        Completions(*(value[start : start + size] for value in vars(done).values()))
        for start in range(0, len(done.ended), size)
    ]
