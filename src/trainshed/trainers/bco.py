"""Binary classifier optimisation: alignment from completions that are marked as desired or not.

Jung et al. 2024 (arXiv 2404.04656): a classifier's loss on the implicit reward, shifted by its running mean.
Left out: the paper's weights for desired and undesired prompts of different distributions (its section 3.3),
for which a density ratio must be estimated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trainshed.config.trainers.bco import BCOParameters
from trainshed.data.judged import JudgedCompletion, as_judged, read_judged
from trainshed.errors import ConfigError, DataError
from trainshed.files import canonical_json, digest_text, read_json, write_json
from trainshed.models.causal_lm import save_causal_lm
from trainshed.models.sections import load_section
from trainshed.models.seeds import derive_seed
from trainshed.policy.model import sequence_log_probs
from trainshed.policy.preferences import bco_loss
from trainshed.progress import say, task
from trainshed.trainers.base import RunContext, TrainerSettings
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.loop import Loop
from trainshed.trainers.packing import TokenRow, collate_rows, pair_row
from trainshed.trainers.transformers_family import TransformersTrainer

_SHIFT = "reward_shift.json"


@dataclass(slots=True)
class ScoredRow:
    """Tokens of a completion with its judgement and its log-probability under the reference."""

    tokens: TokenRow
    label: bool
    pair: int | None
    ref_log_prob: float = 0.0


class BCOTrainer(TransformersTrainer):
    """Trains a language model to be told desired from undesired completions by its own reward.

    The reference is the model as it is when the training starts; its log-probabilities are computed once.

    Parameters
    ----------
    model
        Any causal language model of `transformers`, plain or with adapters.
    tokenizer
        Its tokenizer, with a token that ends a text.
    train_dataset
        ``{"prompt", "completion", "label"}`` or ``{"prompt", "chosen", "rejected"}``.
    eval_dataset
        The same, held out.
    parameters
        The algorithm's own.
    **more
        What `TransformersTrainer` takes: ``arguments``, ``seed``, ``settings``, ``callbacks``.
    """

    algorithm: ClassVar[str] = "bco"
    parameters_class = BCOParameters
    #: running mean reward of desired and undesired completions, and sum and count since the last step
    _means: dict[str, float]
    _pending: dict[str, list[float]]

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: Iterable[Any],
        *,
        eval_dataset: Iterable[Any] | None = None,
        parameters: BCOParameters | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.model, self.tokenizer = model, tokenizer
        self.parameters = parameters or BCOParameters()
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no token that ends a text", fix="set its eos_token")
        reads = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(self.parameters.max_length, reads or self.parameters.max_length)
        self._train = self._rows(train_dataset, "the training rows")
        self._eval = None if eval_dataset is None else self._rows(eval_dataset, "the validation rows")
        self._scored = False
        self._start()

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes."""
        config = context.config
        training, seed = config.training, config.execution.seed
        if training is None or not isinstance(training.own, BCOParameters):
            raise ConfigError("the run has no parameters of bco", where="training")
        model, tokenizer = load_section(config.model, seed=derive_seed(seed, "bco", "adapters"))
        return cls(
            model,
            tokenizer,
            read_judged(config.data, "train"),
            eval_dataset=read_judged(config.data, "validation") or None,
            parameters=training.own,
            arguments=training.arguments,
            seed=seed,
            settings=TrainerSettings.from_context(context),
        )

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model  # type: ignore[no-any-return]

    def train_data(self) -> Sequence[ScoredRow]:
        """Return the completions to learn from."""
        return self._train

    def eval_data(self) -> Sequence[ScoredRow] | None:
        """Return the held-out completions."""
        return self._eval

    def lengths(self, data: Sequence[ScoredRow]) -> Sequence[int]:
        """Return the tokens of each row."""
        return [len(row.tokens) for row in data]

    def collate(self, rows: Sequence[ScoredRow]) -> dict[str, Tensor]:
        """Return a batch, padded on the right."""
        pad = self.tokenizer.pad_token_id
        found = collate_rows(
            [row.tokens for row in rows], int(self.tokenizer.eos_token_id if pad is None else pad)
        )
        return {
            "input_ids": found["input_ids"],
            "mask": found["weights"] > 0,
            "labels": torch.tensor([row.label for row in rows]),
            "ref_log_probs": torch.tensor([row.ref_log_prob for row in rows]),
        }

    def before_training(self, loop: Loop) -> None:
        """Ask the reference, which the model is at this point."""
        self._start()
        self._score_reference()

    def step_batches(self, count: int) -> None:
        """Fold the rewards of the step before into the running shift; the batches stay."""
        keep = self.parameters.delta_decay
        for label, (total, number) in self._pending.items():
            if number:
                mean = total / number
                before = self._means.get(label)
                self._means[label] = mean if before is None else keep * before + (1 - keep) * mean
        self._pending = _nothing()

    @property
    def delta(self) -> float:
        """The reward shift: the mean of the running mean rewards of both kinds."""
        return 0.5 * (self._means.get("desired", 0.0) + self._means.get("undesired", 0.0))

    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the weighted sum of the completions' losses."""
        rewards = self._rewards(model, batch)
        labels = batch["labels"]
        losses = bco_loss(rewards, labels, self.delta) * self._weights(labels)
        if model.training:
            self._note(rewards.detach(), labels)
        return losses.sum()

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the sum of the completions' weights."""
        return float(self._weights(batch["labels"]).sum())

    def evaluate(self) -> dict[str, float]:
        """Return the loss and how well the reward tells the held-out completions apart.

        Returns
        -------
        dict
            ``eval/loss``; ``eval/accuracy``, the share whose reward is on its side of the shift;
            ``eval/preference_accuracy`` and ``eval/margin`` where rows are pairs.
        """
        self._score_reference()
        found = super().evaluate()
        rows = self._eval or []
        rewards = self._eval_rewards(rows)
        right = [(value > self.delta) == row.label for value, row in zip(rewards, rows, strict=True)]
        found["eval/accuracy"] = sum(right) / len(right)
        margins = [
            rewards[place] - rewards[place + 1]
            for place, row in enumerate(rows[:-1])
            if row.pair is not None and row.label and rows[place + 1].pair == row.pair
        ]
        if margins:
            found["eval/preference_accuracy"] = sum(margin > 0 for margin in margins) / len(margins)
            found["eval/margin"] = sum(margins) / len(margins)
        return found

    def save_state(self, path: Path) -> None:
        """Write the running shift."""
        write_json(path / _SHIFT, {"means": self._means, "pending": self._pending})

    def load_state(self, path: Path) -> None:
        """Read what `save_state` wrote."""
        kept = read_json(path / _SHIFT)
        self._means = {name: float(value) for name, value in kept["means"].items()}
        self._pending = {name: [pair[0], pair[1]] for name, pair in kept["pending"].items()}

    def save(self, path: str | Path) -> None:
        """Write weights (or adapters) and tokenizer in the Hugging Face layout."""
        with written_into(Path(path)) as partial:
            save_causal_lm(self.model, self.tokenizer, partial)

    # -- inside ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._means, self._pending = {}, _nothing()

    def _rewards(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        log_probs = sequence_log_probs(model, batch["input_ids"], batch["mask"])
        return self.parameters.beta * (log_probs - batch["ref_log_probs"])

    def _weights(self, labels: Tensor) -> Tensor:
        own = self.parameters
        return torch.where(labels, own.desired_weight, own.undesired_weight)

    def _note(self, rewards: Tensor, labels: Tensor) -> None:
        self.measure("bco/delta", self.delta)
        self.measure("bco/accuracy", ((rewards > self.delta) == labels).float().mean().item())
        for name, inside in (("desired", labels), ("undesired", ~labels)):
            number = int(inside.sum())
            if number:
                total = rewards[inside].sum().item()
                self._pending[name][0] += total
                self._pending[name][1] += number
                self.measure(f"bco/reward_{name}", total / number)

    def _score_reference(self) -> None:
        """Compute the log-probabilities of the model as it is, once."""
        if self._scored:
            return
        for what, rows in (("training", self._train), ("validation", self._eval or [])):
            if rows:
                with task(f"reference on {what} rows", len(rows)) as shown:
                    for row, value in zip(rows, self._log_probs(rows), strict=True):
                        row.ref_log_prob = value
                        shown.advance()
        self._scored = True

    def _eval_rewards(self, rows: Sequence[ScoredRow]) -> list[float]:
        beta = self.parameters.beta
        return [
            beta * (value - row.ref_log_prob) for value, row in zip(self._log_probs(rows), rows, strict=True)
        ]

    def _log_probs(self, rows: Sequence[ScoredRow]) -> list[float]:
        """Return the log-probability of each completion, the longest rows first in memory."""
        size = int(self.arguments.get("per_device_eval_batch_size", 8))
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index].tokens), index))
        device, found = next(self.module.parameters()).device, [0.0] * len(rows)
        training = self.module.training
        self.module.eval()
        with torch.no_grad(), self.compute_context():
            for start in range(0, len(order), size):
                part = order[start : start + size]
                batch = self.collate([rows[index] for index in part])
                ids, mask = batch["input_ids"].to(device), batch["mask"].to(device)
                for index, value in zip(
                    part, sequence_log_probs(self.model, ids, mask).tolist(), strict=True
                ):
                    found[index] = value
        self.module.train(training)
        return found

    def _rows(self, dataset: Iterable[Any], what: str) -> list[ScoredRow]:
        given = list(dataset)
        judged = given if all(isinstance(row, JudgedCompletion) for row in given) else as_judged(given, what)
        found, cut = [], 0
        for number, row in enumerate(judged, start=1):
            prompt, completion = completion_ids(self.tokenizer, row)
            if len(completion) >= self.max_length:
                raise DataError(
                    f"a completion of {len(completion)} tokens does not fit {self.max_length}",
                    where=f"{what}, completion {number}",
                    fix="leave it out, or a larger training.max_length",
                )
            cut += len(prompt) + len(completion) > self.max_length
            tokens = pair_row(prompt, completion, self.max_length, 0.0)
            found.append(ScoredRow(tokens, row.label, row.pair))
        if cut:
            say(f"{what}: the beginning of {cut} prompts was cut to fit {self.max_length} tokens")
        return found

    def _fingerprint(self) -> str:
        own = {
            "family": super()._fingerprint(),
            "parameters": self.parameters.model_dump(mode="json"),
            "rows": [[list(row.tokens.ids), row.label] for row in self._train],
        }
        return digest_text(canonical_json(own))


def _nothing() -> dict[str, list[float]]:
    return {"desired": [0.0, 0.0], "undesired": [0.0, 0.0]}


def completion_ids(tokenizer: Any, row: JudgedCompletion) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its completion, with the token that ends it.

    Raises
    ------
    DataError
        When the chat template writes the prompt otherwise once the completion follows.
    """
    if isinstance(row.prompt, str):
        prompt = list(tokenizer(row.prompt)["input_ids"])
        done = list(tokenizer(str(row.completion), add_special_tokens=False)["input_ids"])
        end = tokenizer.eos_token_id
        return prompt, done if done[-1:] == [end] else [*done, end]
    answer = row.completion if isinstance(row.completion, list) else []
    options: dict[str, Any] = {"tokenize": True, "return_dict": False}
    prompt = list(tokenizer.apply_chat_template(row.prompt, add_generation_prompt=True, **options))
    whole = list(tokenizer.apply_chat_template([*row.prompt, *answer], **options))
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise DataError(
            "the chat template does not begin a whole conversation as it begins its prompt",
            fix="a chat template whose generation prompt is a prefix of the answer",
        )
    return prompt, whole[len(prompt) :]
