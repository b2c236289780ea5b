"""The base of trainers that learn from what they generate: rollouts on the loop of the family.

A rollout is a batch of prompts, completed and judged, as tensors. The optimizer steps then go through it, in
minibatches that follow from the seed; when it is used up, the next one is made with the policy as it has
become. The rollout is part of a checkpoint, so that a training that was killed in the middle of one goes on
with the same weights to the last bit. Left out: what a rollout holds and the loss (`ppo`, `xpo`, `nash_md`).
"""

import contextlib
import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trainshed.config.online import OnlineParameters
from trainshed.data.prompts import Prompt, as_prompts, read_prompts
from trainshed.errors import ConfigError, DataError
from trainshed.files import canonical_json, digest_text, read_json, write_json
from trainshed.models.causal_lm import save_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.models.sections import load_section
from trainshed.models.seeds import derive_seed
from trainshed.policy.losses import token_log_probs
from trainshed.policy.model import ActorCritic, completion_logits, has_adapters, next_logits
from trainshed.policy.rollouts import TokenizedPrompt, prompt_ids, stream, trimmed
from trainshed.policy.sampling import Completions, Sampling, sample_completions
from trainshed.progress import say
from trainshed.rewards.functions import Judged, WeightedRewards, build_rewards
from trainshed.trainers.base import RunContext, TrainerSettings, isolated_random_state
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.loop import Loop
from trainshed.trainers.transformers_family import TransformersTrainer

_ROLLOUT, _PLACE = "rollout.safetensors", "rollout.json"


class OnlineTrainer(TransformersTrainer):
    """Trains a policy on its own completions.

    Parameters
    ----------
    model
        Any causal language model of `transformers`, plain or with adapters.
    tokenizer
        Its tokenizer.
    prompts
        Texts, or rows ``{"prompt": ..., ...}``, whose further columns the rewards read.
    rewards
        What judges completions: `WeightedRewards`, a function as TRL takes it, or several by name.
    eval_prompts
        The same, held out.
    parameters
        The algorithm's own.
    reference
        What the policy must not go far from: a frozen copy of the model when None, or with adapters the
        model without them.
    **more
        What `TransformersTrainer` takes: ``arguments``, ``seed``, ``settings``, ``callbacks``.

    Raises
    ------
    ConfigError
        When batch sizes do not fit, or the tokenizer cannot end or pad a text.
    DataError
        When a row holds no prompt or a prompt leaves no room for an answer.
    """

    parameters_class: ClassVar[type[OnlineParameters]]
    #: how often each rollout is gone through
    passes: int = 1
    _rollout: dict[str, Tensor] | None

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Iterable[Any],
        rewards: Any = None,
        *,
        eval_prompts: Iterable[Any] | None = None,
        parameters: OnlineParameters | None = None,
        reference: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.model, self.tokenizer = model, tokenizer
        self.parameters: Any = parameters or self.parameters_class()
        self.rewards = as_rewards(rewards)
        self.sampling = self._sampling()
        self._prompts = self._tokenized(as_prompts(prompts), "the training prompts")
        held_out = None if eval_prompts is None else as_prompts(eval_prompts)
        self._eval = None if held_out is None else self._tokenized(held_out, "the validation prompts")
        self._check_sizes()
        self.reference = reference
        if reference is None and not has_adapters(model):
            self.reference = copy.deepcopy(model)
        if self.reference is not None:
            self.reference = self.reference.eval().requires_grad_(False)
        self._policy = self.make_module()
        self._forget()

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes."""
        config = context.config
        training, seed = config.training, config.execution.seed
        if training is None or not isinstance(training.own, cls.parameters_class):
            raise ConfigError(f"the run has no parameters of {cls.algorithm}", where="training")
        own = training.own
        model, tokenizer = load_section(config.model, seed=derive_seed(seed, cls.algorithm, "adapters"))
        rewards = build_rewards(
            own.reward_entries(), reward_model=own.reward_model, device=config.execution.device
        )
        return cls(
            model,
            tokenizer,
            read_prompts(config.data, "train"),
            rewards,
            eval_prompts=read_prompts(config.data, "validation") or None,
            parameters=own,
            arguments=training.arguments,
            seed=seed,
            settings=TrainerSettings.from_context(context),
        )

    # -- what a subclass says --------------------------------------------------------------------------

    def make_module(self) -> nn.Module:
        """Return what learns, an `ActorCritic` around the model."""
        return ActorCritic(self.model, None)

    @abstractmethod
    def make_rollout(self, rows: Sequence[TokenizedPrompt], seed: int) -> dict[str, Tensor]:
        """Complete and judge prompts with the policy as it is.

        Parameters
        ----------
        rows
            ``n`` prompts.
        seed
            Of this rollout.

        Returns
        -------
        dict
            Tensors with ``n`` rows each, ``input_ids``, ``attention_mask`` and ``mask`` among them.
        """

    def cut(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return some rows of a rollout as `loss_sum` takes them, with no padding that all of them have."""
        return trimmed(batch)

    def kept(self) -> dict[str, float]:
        """Return numbers that a checkpoint must hold besides the rollout."""
        return {}

    def restore_kept(self, values: Mapping[str, float]) -> None:
        """Take what `kept` returned."""

    def leaves_rollout(self) -> bool:
        """Return whether the rollout should be left before it is used up; asked before each step."""
        return False

    # -- the family's questions ------------------------------------------------------------------------

    @property
    def module(self) -> nn.Module:
        """The policy, with its value head where it has one."""
        return self._policy

    def train_data(self) -> Sequence[int]:
        """Return a place for each time that a prompt is learned from, so that an epoch goes over all once."""
        step = self._step_size()
        return range(-(-len(self._prompts) * self.passes // step) * step)

    def eval_data(self) -> Sequence[Any] | None:
        """Return the held-out prompts."""
        return self._eval

    def collate(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return a place holder: `step_batches` puts a part of the rollout in its place."""
        return {"places": list(rows)}

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the number of completions' tokens."""
        return float(batch["mask"].sum()) if "mask" in batch else 1.0

    def step_batches(self, count: int) -> list[dict[str, Tensor]]:
        """Return the micro-batches of the next optimizer step, of a new rollout when need be."""
        left = self.leaves_rollout()
        used_up = self._at >= self.passes * (self.parameters.rollout_batch_size // self._step_size())
        if self._rollout is None or used_up or left:
            self._next_rollout()
        assert self._rollout is not None
        rows = self._minibatch().tensor_split(count)
        self._at += 1
        return [self.cut({name: value[part] for name, value in self._rollout.items()}) for part in rows]

    def before_training(self, loop: Loop) -> None:
        """Start without a rollout, the reference where the policy is."""
        if loop.args.world_size > 1:
            raise ConfigError(
                f"{self.algorithm} trains in one process, not in {loop.args.world_size}",
                where="execution",
                fix="launch one process; a larger rollout costs memory only while it generates",
            )
        self._forget()
        self._place_reference()

    def save_state(self, path: Path) -> None:
        """Write the rollout and the place in it."""
        if self._rollout is not None:
            tensors = {name: value.contiguous().cpu() for name, value in self._rollout.items()}
            safetensors.torch.save_file(tensors, str(path / _ROLLOUT))
        write_json(path / _PLACE, {"number": self._number, "at": self._at, "kept": self.kept()})

    def load_state(self, path: Path) -> None:
        """Read what `save_state` wrote."""
        place = read_json(path / _PLACE)
        self._number, self._at = int(place["number"]), int(place["at"])
        self.restore_kept(place["kept"])
        if (path / _ROLLOUT).is_file():
            self._rollout = safetensors.torch.load_file(str(path / _ROLLOUT))

    def save(self, path: str | Path) -> None:
        """Write the policy: weights (or adapters) and tokenizer, in the Hugging Face layout."""
        with written_into(Path(path)) as partial:
            save_causal_lm(self.model, self.tokenizer, partial)

    def evaluate(self) -> dict[str, float]:
        """Return what completions of the held-out prompts are worth; the same draw each time.

        Returns
        -------
        dict
            ``eval/score`` (weighted sum of the rewards), ``eval/reward_<name>``, ``eval/length`` in tokens,
            ``eval/without_eos``, a share, and ``eval/kl`` to the reference, in nats a completion.
        """
        if not self._eval:
            raise ConfigError("there are no prompts to evaluate on", fix="give eval_prompts")
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with isolated_random_state(), self.compute_context():
                self._place_reference()
                done = self.complete(self._eval, derive_seed(self.seed, self.algorithm, "evaluate"))
                judged = self.judge(self._eval, done)
                kl = self._sampled_kl(done)
        finally:
            for part, training in modes:
                part.training = training
        rewards = {name.replace("/", "_", 1): value for name, value in judged.means().items()}
        return {
            "eval/score": sum(judged.totals) / len(judged.totals),
            "eval/kl": kl,
            "eval/length": done.mask.sum(1).float().mean().item(),
            "eval/without_eos": 1.0 - done.ended.float().mean().item(),
            **{f"eval/{name}": value for name, value in rewards.items()},
        }

    # -- what subclasses use ---------------------------------------------------------------------------

    def complete(
        self, rows: Sequence[TokenizedPrompt], seed: int, model: Any = None, **more: Any
    ) -> Completions:
        """Sample a completion of each prompt with the policy, or another model."""
        return sample_completions(
            self.model if model is None else model,
            [row.ids for row in rows],
            self.sampling,
            seed=seed,
            batch_size=self.parameters.generation_batch_size,
            **more,
        )

    def judge(self, rows: Sequence[TokenizedPrompt], done: Completions) -> Judged:
        """Ask the rewards about completions."""
        texts: list[Any] = done.texts(self.tokenizer)
        if rows[0].prompt.conversational:
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        names = sorted({name for row in rows for name in row.prompt.columns})
        columns = {name: [row.prompt.columns.get(name) for row in rows] for name in names}
        return self.rewards([row.prompt.prompt for row in rows], texts, **columns)

    def scores(self, judged: Judged, done: Completions) -> Tensor:
        """Return what completions are worth ``[n]``: clipped, and less where they did not end."""
        found = torch.tensor(judged.totals, dtype=torch.float32)
        if self.parameters.reward_clip is not None:
            found = found.clamp(-self.parameters.reward_clip, self.parameters.reward_clip)
        return found - self.parameters.missing_eos_penalty * (~done.ended.cpu()).float()

    def note_completions(self, judged: Judged, done: Completions, scores: Tensor) -> None:
        """Measure what every algorithm reports of a rollout."""
        for name, value in judged.means().items():
            self.measure(name, value)
        group = self.algorithm
        self.measure(f"{group}/score", scores.mean().item())
        self.measure(f"{group}/length", done.mask.sum(1).float().mean().item())
        self.measure(f"{group}/without_eos", 1.0 - done.ended.float().mean().item())

    def reference_logits(self, ids: Tensor, attention: Tensor, length: int) -> Tensor:
        """Return the logits ``[n, t, v]`` of the reference for the last tokens, without a graph."""
        with torch.no_grad(), self.as_reference() as model:
            return completion_logits(model, ids, attention, length)[0]

    def next_reference_logits(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Return the reference's logits ``[n, v]`` of the token after the last."""
        with torch.no_grad(), self.as_reference() as model:
            return next_logits(model, ids, attention)

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Any]:
        """Yield the reference: a model of its own, or the policy without its adapters."""
        if self.reference is not None:
            yield self.reference
        else:
            with self.model.disable_adapter():
                yield self.model

    def complete_with_reference(self, rows: Sequence[TokenizedPrompt], seed: int) -> Completions:
        """Sample a completion of each prompt with the reference."""
        with self.as_reference() as model:
            return self.complete(rows, seed, model)

    def reference_log_probs(self, done: Completions) -> Tensor:
        """Return the log-probabilities ``[n, t]`` of completions' tokens under the reference."""
        length, heat, size = (
            done.mask.shape[1],
            self.sampling.temperature,
            self.parameters.generation_batch_size,
        )
        parts = []
        for start in range(0, len(done.ended), size):
            ids, attention = done.input_ids[start : start + size], done.attention_mask[start : start + size]
            logits = self.reference_logits(ids, attention, length)
            parts.append(token_log_probs(logits, ids[:, -length:], temperature=heat))
        return torch.cat(parts)

    # -- inside ----------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._rollout = None
        self._number, self._at = -1, 0

    def _place_reference(self) -> None:
        if self.reference is not None:
            self.reference.to(next(self.module.parameters()).device)

    def _next_rollout(self) -> None:
        self._number, self._at = self._number + 1, 0
        size = self.parameters.rollout_batch_size
        rows = [self._prompts[i] for i in stream(len(self._prompts), size, self._number, self.derived_seed())]
        training = self.module.training
        self.module.eval()
        with torch.no_grad(), self.compute_context():
            made = self.make_rollout(rows, self.derived_seed("rollout", str(self._number)))
        self.module.train(training)
        self._rollout = {name: value.cpu() for name, value in made.items()}

    def _minibatch(self) -> Tensor:
        """Return which rows of the rollout the next step sees."""
        size, step = self.parameters.rollout_batch_size, self._step_size()
        steps = size // step
        pass_number, place = divmod(self._at, steps)
        seed = self.derived_seed("minibatches", str(self._number), str(pass_number))
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        return order[place * step : (place + 1) * step]

    def _sampled_kl(self, done: Completions) -> float:
        """Return the mean over completions of log π − log π_ref of what was sampled, in nats."""
        length, size = done.mask.shape[1], self.parameters.generation_batch_size
        parts = []
        for start in range(0, len(done.ended), size):
            ids, attention = done.input_ids[start : start + size], done.attention_mask[start : start + size]
            with torch.no_grad():
                parts.append(self.module(ids, attention, length, self.sampling.temperature)[0])
        ratio = (torch.cat(parts) - self.reference_log_probs(done)) * done.mask
        return ratio.sum(1).mean().item()

    def _sampling(self) -> Sampling:
        own, tokenizer = self.parameters, self.tokenizer
        end = tokenizer.eos_token_id
        if end is None:
            raise ConfigError("the tokenizer has no token that ends a text", fix="set its eos_token")
        stops = [int(end)]
        if own.stop_token is not None:
            ids = tokenizer(own.stop_token, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise ConfigError(
                    f"{own.stop_token!r} is {len(ids)} tokens of this tokenizer, not one",
                    where="training.stop_token",
                    fix="one token, or leave it out",
                )
            stops.append(int(ids[0]))
        pad = tokenizer.pad_token_id
        return Sampling(
            max_new_tokens=own.max_new_tokens,
            temperature=own.temperature,
            top_p=own.top_p,
            top_k=own.top_k,
            stop_ids=tuple(dict.fromkeys(stops)),
            pad_id=int(end if pad is None else pad),
        )

    def _step_size(self) -> int:
        size = int(self.arguments.get("per_device_train_batch_size", 8))
        return size * int(self.arguments.get("gradient_accumulation_steps", 1))

    def _check_sizes(self) -> None:
        size, step = self.parameters.rollout_batch_size, self._step_size()
        if size % step:
            raise ConfigError(
                f"a rollout of {size} prompts does not divide into optimizer steps of {step}",
                where="training.rollout_batch_size",
                fix=f"a multiple of per_device_train_batch_size x gradient_accumulation_steps, such as "
                f"{-(-size // step) * step}",
            )

    def _tokenized(self, prompts: Sequence[Prompt], what: str) -> list[TokenizedPrompt]:
        own = self.parameters
        reads = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = None if reads is None else reads - own.max_new_tokens
        if room is not None and room < 1:
            raise ConfigError(
                f"completions of {own.max_new_tokens} tokens leave no room in a model that reads {reads}",
                where="training.max_new_tokens",
                fix=f"less than {reads}",
            )
        longest = min((n for n in (room, own.max_prompt_length) if n is not None), default=None)
        found, cut = [], 0
        for number, prompt in enumerate(prompts, start=1):
            ids = prompt_ids(self.tokenizer, prompt)
            if not ids:
                raise DataError("the prompt has no tokens", where=f"{what}, row {number}")
            if longest is not None and len(ids) > longest:
                if own.max_prompt_length is None:
                    raise DataError(
                        f"a prompt of {len(ids)} tokens and a completion of {own.max_new_tokens} do not "
                        f"fit a model that reads {reads}",
                        where=f"{what}, row {number}",
                        fix="leave it out, or set training.max_prompt_length to cut the beginning of prompts",
                    )
                ids, cut = ids[-longest:], cut + 1
            found.append(TokenizedPrompt(prompt, tuple(ids)))
        if cut:
            say(f"{what}: the beginning of {cut} of {len(found)} was cut to {longest} tokens")
        return found

    def _fingerprint(self) -> str:
        """Return what recognises this training; a checkpoint of adapters leaves their base out."""
        own = {
            "family": super()._fingerprint(),
            "policy": weights_hash(self.model),
            "parameters": self.parameters.model_dump(mode="json", exclude={"rewards"}),
            "rewards": self.rewards.weights,
            "prompts": [list(row.ids) for row in self._prompts],
        }
        return digest_text(canonical_json(own))


def as_rewards(rewards: Any) -> WeightedRewards:
    """Return what judges as `WeightedRewards`: it, one function, or several by name."""
    if isinstance(rewards, WeightedRewards):
        return rewards
    if callable(rewards):
        return WeightedRewards({getattr(rewards, "__name__", type(rewards).__name__.lower()): rewards})
    return WeightedRewards(rewards or {})
