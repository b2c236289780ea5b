"""What TRL's loops that sample while they train lack, whatever they sample for.

TRL samples from the global random generator, with the dropout of the training, and takes for the loss of an
evaluation the mean of its batches' means. Left out: the loops (`trl_gkd`, `trl_distillation`,
`trl_online_dpo`).
"""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler

from trainshed.errors import ConfigError, DataError
from trainshed.models.seeds import derive_seed
from trainshed.policy.rollouts import prompt_ids
from trainshed.trainers.base import isolated_random_state

#: a loop of TRL, which follows among the bases
_Library: Any = object


class SampledLoop(_Library):
    """Draws that follow from the step, evaluations that change nothing, and their exact means.

    It stands before a trainer of TRL among the bases of a loop, and `ExactTraining` before it.
    """

    owner: Any
    state: Any
    accelerator: Any
    args: Any
    _evaluated: Iterator[int] = iter(())
    _sums: dict[str, float] | None = None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate with the same draws each time; those of the training go on as if nothing was asked."""
        self._evaluated, self._sums = itertools.count(), {}
        try:
            with isolated_random_state():
                torch.manual_seed(self.owner.derived_seed("evaluate"))
                found: dict[str, float] = super().evaluate(*args, **kwargs)
        finally:
            self._sums = None
        return found

    def draw_seed(self, *names: str, training: bool) -> int:
        """Return the seed of what is sampled now in this process: of a step, or of an evaluation's batch."""
        place = str(self.state.global_step) if training else f"evaluation {next(self._evaluated)}"
        seed: int = self.owner.derived_seed("sampling", place)
        return derive_seed(seed, *names, str(self.accelerator.process_index))

    def note_evaluated(self, count: int, **totals: float) -> None:
        """Take the sums over a batch of an evaluation, of ``count`` tokens; ``eval_<name>`` is their mean."""
        if self._sums is not None:
            for name, value in {"count": float(count), **totals}.items():
                self._sums[name] = self._sums.get(name, 0.0) + value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; of an evaluation the means over all that it looked at."""
        if self._sums and "eval_loss" in logs:
            names = sorted(self._sums)
            values = [self._sums[name] for name in names]
            if self.args.world_size > 1:
                total = torch.tensor(values, dtype=torch.float32, device=self.args.device)
                values = self.accelerator.reduce(total, "sum").tolist()
            found = dict(zip(names, values, strict=True))
            count = max(found.pop("count"), 1.0)
            logs |= {f"eval_{name}": value / count for name, value in found.items()}
        super().log(logs, start_time)


@contextlib.contextmanager
def sampling_from(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Sample from a model as it is, without dropout, and with a seed leave the global random state alone."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    gpus = [p.device for p in itertools.islice(model.parameters(), 1) if p.device.type == "cuda"]
    try:
        with contextlib.ExitStack() as stack:
            if seed is not None:
                stack.enter_context(torch.random.fork_rng(devices=gpus))
                torch.manual_seed(seed)
            yield
    finally:
        for part, training in modes:
            part.training = training


def reading_length(model: Any) -> int | None:
    """Return how many tokens a model reads, None where nothing bounds it."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found


def room_for_prompts(model: Any, new_tokens: int, where: str) -> int | None:
    """Return the longest prompt before so many new tokens, in tokens; None where nothing bounds it.

    Raises
    ------
    ConfigError
        When there is no room; ``where`` is the argument that says how many are new.
    """
    reads = reading_length(model)
    if reads is None:
        return None
    if new_tokens >= reads:
        raise ConfigError(
            f"completions of {new_tokens} tokens leave no room in a model that reads {reads}",
            where=where,
            fix=f"less than {reads}",
        )
    return reads - new_tokens


def check_prompts(tokenizer: Any, prompts: Any, room: int | None, what: str) -> None:
    """Check that prompts have tokens and leave room for an answer.

    Parameters
    ----------
    tokenizer
        Of the model.
    prompts
        As `data.prompts.as_prompts` gives them.
    room
        Most tokens of a prompt.
    what
        What messages call them.

    Raises
    ------
    DataError
        Names the row.
    """
    for number, prompt in enumerate(prompts, start=1):
        length = len(prompt_ids(tokenizer, prompt))
        where = f"{what}, row {number}"
        if not length:
            raise DataError("the prompt has no tokens", where=where)
        if room is not None and length > room:
            raise DataError(
                f"the prompt has {length} tokens, and {room} leave room for a completion",
                where=where,
                fix="leave the row out, cut it, or allow shorter completions",
            )


class EpochOrder(Sampler[int]):
    """TRL's order of prompts, which follows from the seed and the number of the epoch.

    TRL's goes on from its own generator, which no checkpoint holds: a training that was resumed in its second
    epoch saw the order of the first one again.

    Parameters
    ----------
    sampler
        TRL's `RepeatSampler`.
    seed
        Of the training; that of the first epoch, as TRL has it.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.sampler.generator.manual_seed(self.seed + self.epoch)
        yield from self.sampler

    def __len__(self) -> int:
        return len(self.sampler)


class OrderedPrompts(_Library):
    """A loop of TRL that can be asked for the order of each epoch; others keep the order that they have."""

    args: Any

    def _get_train_sampler(self, *given: Any) -> Any:
        sampler = super()._get_train_sampler(*given)
        prompts = hasattr(sampler, "repeat_count") and sampler.shuffle
        return EpochOrder(sampler, self.args.seed) if prompts else sampler
