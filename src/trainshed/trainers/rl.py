"""PPO on an environment of Gymnasium: a policy learns from the rewards of its own actions.

Schulman et al. 2017 (arXiv 1707.06347), with advantages and loss of TorchRL. Left out: the loop
(`rollout_loop`), environments and networks (`trainshed.policy`), and PPO on text (`ppo`).
"""

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from transformers import TrainerCallback

from trainshed.config.trainers.rl import RLParameters
from trainshed.errors import ConfigError, require_extra
from trainshed.files import canonical_json, digest_text
from trainshed.models.encoders import weights_hash
from trainshed.models.precision import resolve_device
from trainshed.models.seeds import derive_seed
from trainshed.plan.interrupts import StopRequest
from trainshed.policy.control import Policy
from trainshed.policy.environments import Environments, make_environment, opened, play
from trainshed.policy.spaces import Actions, describe_observations
from trainshed.trainers import arguments as argument_rules
from trainshed.trainers.base import RunContext, Trainer, TrainerSettings, TrainResult, isolated_random_state
from trainshed.trainers.callbacks import MetricsCallback, StopCallback, tracker_callbacks
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.rollout_loop import ReturnCallback, RolloutLoop

#: parameters that do not decide which weights come out
_SETTINGS = {"checkpoint_interval", "save_total_limit"}


class RLTrainer(Trainer):
    """Trains a policy by PPO in copies of one environment.

    Parameters
    ----------
    environment
        An id of Gymnasium, ``module:Class``, or a function that returns a `gymnasium.Env`; the one that
        ``parameters`` name when None.
    policy
        Where to begin; a new one when None.
    hidden_size, num_layers
        Of a new policy: width and number of the layers of actor and critic each.
    parameters
        The algorithm's own.
    seed
        Every random choice derives from it: first weights, actions, minibatches, the seed of each episode.
    settings
        How it runs.
    callbacks
        More callbacks of the `transformers` library; a step is one step of one environment.

    Raises
    ------
    MissingExtraError
        When TorchRL or Gymnasium is not installed.
    ConfigError
        When the environment is not there, or its observations or actions are of an unknown kind.
    """

    algorithm: ClassVar[str] = "rl"
    parameters_class = RLParameters

    def __init__(
        self,
        environment: str | Callable[[], Any] | None = None,
        *,
        policy: Policy | None = None,
        hidden_size: int = 64,
        num_layers: int = 2,
        parameters: RLParameters | None = None,
        seed: int = 0,
        settings: TrainerSettings | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(seed=seed, settings=settings)
        for module in ("gymnasium", "tensordict", "torchrl"):
            require_extra(module, "rl")
        self.parameters = parameters or RLParameters()
        self.callbacks = tuple(callbacks)
        self.environment = environment or self.parameters.env_name
        self._make: Callable[[], Any] = self.environment  # type: ignore[assignment]
        if isinstance(self.environment, str):
            self._make = functools.partial(make_environment, self.environment, self.parameters.env_kwargs)
        self.policy = policy or self._new_policy(hidden_size, num_layers)
        self.policy.to(resolve_device(self.settings.device)).eval()

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes."""
        config = context.config
        training, model = config.training, config.model
        if training is None or not isinstance(training.own, RLParameters):
            raise ConfigError("the run has no parameters of rl", where="training")
        shape = {"hidden_size": model.hidden_size, "num_layers": model.num_layers}
        return cls(
            parameters=training.own,
            seed=config.execution.seed,
            settings=TrainerSettings.from_context(context),
            **{name: size for name, size in shape.items() if size is not None},  # type: ignore[arg-type]
        )

    def derived_seed(self, *names: str) -> int:
        """Return a seed of this training for one purpose."""
        return derive_seed(self.seed, self.algorithm, *names)

    def train(self) -> TrainResult:
        """Train, or go on from the last checkpoint.

        Returns
        -------
        TrainResult
            Its steps are those of the environments.

        Raises
        ------
        RunError
            When a loss, a gradient or what an environment gives is not a finite number, or the disk is full.
        CheckpointError
            When the directory holds checkpoints of another training, or the environment cannot be put back
            where it was.
        trainshed.plan.interrupts.Interrupted
            When a signal came; a checkpoint holds the rollout in which it did.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(isolated_random_state())
            stop = self.settings.stop or stack.enter_context(StopRequest().listening())
            stack.enter_context(stop.graceful())
            directory = self.settings.directory
            saves = directory is not None
            if directory is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trainshed-")))
            own = self.parameters
            environments = stack.enter_context(
                opened(Environments(self._make, own.n_envs, self._episode_seed))
            )
            progress = ReturnCallback(self.settings.name, self.settings)
            stack.callback(progress.close)
            callbacks = [*self.callbacks, progress, StopCallback(stop, saves=saves)]
            callbacks += tracker_callbacks(self.settings)
            if self.settings.metrics is not None:
                callbacks.append(MetricsCallback(self.settings.metrics))
            loop = RolloutLoop(self, environments, self._arguments(directory), callbacks, saves=saves)
            return loop.go(self._fingerprint(), resume=saves and self.settings.resume)

    def evaluate(self) -> dict[str, float]:
        """Return what whole episodes are worth in which the likeliest action is taken; always the same ones.

        Returns
        -------
        dict
            Of the sums of rewards ``eval/return`` (mean), ``eval/return_std``, ``eval/return_min`` and
            ``eval/return_max``, and ``eval/episode_length``, the mean number of steps.
        """
        own = self.parameters
        seeds = [self.derived_seed("evaluate", str(number)) for number in range(own.eval_episodes)]
        if not seeds:
            raise ConfigError("there are no episodes to evaluate on", where="training.eval_episodes")
        episodes = play(self._make, self._greedy, seeds, at_once=own.n_envs)
        totals = [episode.total for episode in episodes]
        return {
            "eval/return": statistics.fmean(totals),
            "eval/return_std": statistics.pstdev(totals),
            "eval/return_min": min(totals),
            "eval/return_max": max(totals),
            "eval/episode_length": statistics.fmean(episode.length for episode in episodes),
        }

    def save(self, path: str | Path) -> None:
        """Write the policy, which `trainshed.policy.control.Policy.load` reads."""
        name = self.environment if isinstance(self.environment, str) else None
        with written_into(Path(path)) as partial:
            self.policy.save(partial, environment=name)

    # -- inside ----------------------------------------------------------------------------------------

    def _new_policy(self, hidden_size: int, num_layers: int) -> Policy:
        own = self.parameters
        environment = self._make()
        try:
            observations = describe_observations(environment.observation_space)
            actions = Actions.from_space(environment.action_space)
        finally:
            environment.close()
        activation: Literal["tanh", "relu"] = own.activation
        return Policy(
            observations,
            actions,
            hidden_size=hidden_size,
            num_layers=num_layers,
            activation=activation,
            normalize=own.normalize_observations,
            seed=self.derived_seed("weights"),
        )

    def _episode_seed(self, index: int, number: int) -> int:
        return self.derived_seed("environment", str(index), str(number))

    def _greedy(self, observations: np.ndarray) -> np.ndarray:
        return self.policy.choose(observations, greedy=True)

    def _arguments(self, directory: Path) -> Any:
        """Return the library's arguments, for callbacks that look at them."""
        own = self.parameters
        made = argument_rules.make_arguments(
            {"max_steps": own.n_rollouts * own.rollout_size, "learning_rate": own.learning_rate},
            directory=directory,
            device=self.settings.device,
            seed=self.derived_seed(),
        )
        if made.world_size > 1:
            raise ConfigError(
                f"rl trains in one process, not in {made.world_size}", where="execution", fix="launch one"
            )
        if self.settings.project:
            made.project = self.settings.project
        made.run_name = self.settings.name
        return made

    def _fingerprint(self) -> str:
        """Return what recognises this training: first weights, parameters, environment and seed."""
        named = isinstance(self.environment, str)
        return digest_text(
            canonical_json(
                {
                    "weights": weights_hash(self.policy),
                    "parameters": self.parameters.model_dump(mode="json", exclude=_SETTINGS),
                    "environment": self.environment if named else None,
                    "seed": self.seed,
                    "algorithm": self.algorithm,
                }
            )
        )
