"""TRL's trainers that generate while they train and are judged by rewards.

Completions that were generated and not yet learnt from are in the checkpoint, so that a training which is
resumed between two steps of one rollout ends as an undisturbed one. Left out: rewards (`trainshed.rewards`),
the loop (see `trl_family`, `exact`).
"""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerCallback

from trainshed.config.resolved import RunConfig
from trainshed.models.quiet import no_library_bars
from trainshed.rewards.functions import WeightedRewards, build_rewards
from trainshed.trainers.arguments import default_of
from trainshed.trainers.exact import ExactTraining
from trainshed.trainers.trl_family import TRLTrainer, frozen_copy


class RewardedTrainer(TRLTrainer):
    """Trains a policy on completions that it generates; the parameters are those of `TRLTrainer`, and:

    Parameters
    ----------
    rewards
        `WeightedRewards`, or functions by name, ``f(prompts, completions, **columns) -> list[float]``.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: Any,
        *,
        rewards: WeightedRewards | Mapping[str, Any],
        **more: Any,
    ) -> None:
        super().__init__(model, tokenizer, train_dataset, **more)
        self.rewards = rewards if isinstance(rewards, WeightedRewards) else WeightedRewards(rewards)
        beta = self.arguments.get("beta", default_of(self.arguments_class, "beta"))
        self._first = frozen_copy(model) if beta else None

    @classmethod
    def objects_of_run(cls, config: RunConfig) -> dict[str, Any]:
        """Return the rewards that a configuration names."""
        assert config.training is not None
        own: Any = config.training.own
        device = config.execution.device
        return {"rewards": build_rewards(own.reward_entries(), reward_model=own.reward_model, device=device)}

    def make_loop(self, args: Any, callbacks: list[TrainerCallback]) -> ExactTraining:
        """Return TRL's trainer, made exact."""
        args.reward_weights = list(self.rewards.weights.values())
        with self._first_weights_on_disk():
            return super().make_loop(args, callbacks)

    def objects(self) -> dict[str, Any]:
        """Return the rewards, each under its name."""
        return {"reward_funcs": [_named(name, f) for name, f in self.rewards.functions.items()]}

    @contextlib.contextmanager
    def _first_weights_on_disk(self) -> Iterator[None]:
        """Let TRL find the first weights: it loads its reference model by the name of the policy."""
        if self._first is None:
            yield
            return
        config = self.model.config
        before = config._name_or_path
        with tempfile.TemporaryDirectory(prefix="trainshed-") as directory:
            with no_library_bars():
                self._first.save_pretrained(directory)
            config._name_or_path = directory
            try:
                yield
            finally:
                config._name_or_path = before


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a reward as a function of that name, under which TRL reports it."""

    @functools.wraps(function, assigned=(), updated=())
    def judge(prompts: Any, completions: Any, **columns: Any) -> Any:
        for taken in _OF_TRL:
            columns.pop(taken, None)
        return list(function(prompts=prompts, completions=completions, **columns))

    judge.__name__ = name
    return judge


#: what TRL gives to rewards besides the columns of the data
_OF_TRL = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
