"""The loop of a policy that learns in environments: roll out, learn, measure, save.

It shares with the other trainers what happens besides (progress, ``metrics.jsonl``, trackers, stopping) and
whole checkpoints. A step is one step of one environment. All chance comes from generators that are seeded
anew for each rollout, and episodes are played again when the training goes on
(`trainshed.policy.environments`), so that a killed training ends with the weights of one that was not. Left
out: the formulas (`trainshed.policy.experience`).
"""

import math
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import rotate_checkpoints

from trainshed.files import read_json, write_json
from trainshed.policy.advantages import explained_variance
from trainshed.policy.environments import Environments, Episode
from trainshed.policy.experience import clipped_loss, collect, prepared
from trainshed.trainers import checkpoints
from trainshed.trainers.base import TrainResult
from trainshed.trainers.callbacks import ProgressCallback, group_names

if TYPE_CHECKING:
    from trainshed.trainers.rl import RLTrainer

#: finished episodes that the reported return is a mean of
RECENT_EPISODES = 100
_WEIGHTS, _OPTIMIZER, _EPISODES = "model.safetensors", "optimizer.pt", "environments.safetensors"
_PLACE, _STATE = "loop.json", "trainer_state.json"
#: what the loss reports, and what it is called here
_TOLD = {
    "loss_objective": "rl/policy_loss",
    "loss_critic": "rl/value_loss",
    "entropy": "rl/entropy",
    "clip_fraction": "rl/clip_fraction",
    "value_clip_fraction": "rl/value_clip_fraction",
}


class ReturnCallback(ProgressCallback):
    """Shows how far the training is, and the mean return of the latest episodes."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Remember the return, to show it."""
        if logs and "rl/return" in logs:
            self._note = f"return {logs['rl/return']:.1f}"


class RolloutLoop:
    """One training of one trainer's policy.

    Parameters
    ----------
    owner
        Gives policy, parameters and seeds.
    environments
        Where it acts.
    args
        The arguments that callbacks look at; their ``output_dir`` holds the checkpoints.
    callbacks
        What happens besides.
    saves
        Whether checkpoints are written.
    """

    def __init__(
        self,
        owner: "RLTrainer",
        environments: Environments,
        args: Any,
        callbacks: Sequence[TrainerCallback],
        *,
        saves: bool,
    ) -> None:
        self.owner, self.policy, self.parameters = owner, owner.policy, owner.parameters
        self.environments, self.args, self.callbacks, self.saves = environments, args, callbacks, saves
        own = self.parameters
        self.loss = clipped_loss(self.policy, own)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=own.learning_rate, eps=1e-5)
        self.state = TrainerState(max_steps=own.n_rollouts * own.rollout_size)
        self.control = TrainerControl()
        self.rollouts, self.episodes = 0, 0
        self.recent: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self.losses = [0.0, 0.0]
        self.fingerprint = ""

    def go(self, fingerprint: str, *, resume: bool) -> TrainResult:
        """Train from the start, or from the newest intact checkpoint of this training.

        Parameters
        ----------
        fingerprint
            What recognises this training.
        resume
            Whether to look for a checkpoint; otherwise those that are there are deleted.
        """
        self.fingerprint = fingerprint
        root, found = Path(self.args.output_dir), None
        if resume:
            found = checkpoints.latest_checkpoint(root, fingerprint)
        elif self.saves:
            checkpoints.remove_checkpoints(root)
        if found is None:
            self.environments.begin()
        else:
            self._restore(found)
        self._tell("on_train_begin")
        while self.rollouts < self.parameters.n_rollouts:
            self._rollout()
        self._tell("on_train_end")
        return self._result()

    # -- one rollout -----------------------------------------------------------------------------------

    def _rollout(self) -> None:
        own = self.parameters
        left = 1.0 if own.lr_schedule == "constant" else 1.0 - self.rollouts / own.n_rollouts
        for group in self.optimizer.param_groups:
            group["lr"] = own.learning_rate * left
        device = next(self.policy.parameters()).device
        generator = torch.Generator(device).manual_seed(self._seed("actions"))
        experience = collect(self.policy, self.environments, own.n_steps, generator)
        batch = prepared(self.policy, experience, self.loss, own)
        logs = self._learn(batch)
        # only now, so that the policy that learned is the one that acted
        self.policy.observe(experience.observations.flatten(0, 1))
        self.recent.extend(experience.ended)
        self.episodes += len(experience.ended)
        self.rollouts += 1
        self.state.global_step = self.rollouts * own.rollout_size
        logs |= {"learning_rate": own.learning_rate * left, "rl/episodes": float(self.episodes)}
        logs["rl/explained_variance"] = explained_variance(*_values(batch, self.loss)).item()
        if self.recent:
            logs["rl/return"] = _mean([episode.total for episode in self.recent])
            logs["rl/episode_length"] = _mean([float(episode.length) for episode in self.recent])
        self._finish(logs)

    def _finish(self, logs: dict[str, float]) -> None:
        """Measure, log, and save what is due after a rollout."""
        own = self.parameters
        last = self.rollouts == own.n_rollouts
        if own.eval_episodes and (last or (own.eval_interval and self.rollouts % own.eval_interval == 0)):
            logs |= self.owner.evaluate()
        self.state.log_history.append({"step": self.state.global_step, **logs})
        self._tell("on_log", logs=logs)
        self.control.should_save = False
        self._tell("on_step_end")
        due = last or self.rollouts % own.checkpoint_interval == 0 or self.control.should_save
        if self.saves and due:
            self._save()
            self._tell("on_save")

    def _learn(self, batch: Any) -> dict[str, float]:
        """Go through a rollout in minibatches, and return what the loss was."""
        own = self.parameters
        shuffle = torch.Generator().manual_seed(self._seed("minibatches"))
        sums: dict[str, float] = {}
        steps = 0
        for _ in range(own.n_epochs):
            for part in torch.randperm(len(batch), generator=shuffle).split(own.minibatch_size):
                told = self._minibatch(batch[part])
                for name, value in told.items():
                    sums[name] = sums.get(name, 0.0) + value
                steps += 1
                if own.target_kl is not None and told["rl/approx_kl"] > own.target_kl:
                    return {name: value / steps for name, value in sums.items()}
        return {name: value / steps for name, value in sums.items()}

    def _minibatch(self, batch: Any) -> dict[str, float]:
        """Do one optimizer step."""
        found = self.loss(batch)
        total = sum((value for name, value in found.items() if name.startswith("loss_")), torch.zeros(()))
        loss = total.item()
        if not math.isfinite(loss):
            raise self._not_finite("loss", loss)
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[union-attr]
        bound = self.parameters.max_grad_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.policy.parameters(), bound))
        if not math.isfinite(norm):
            raise self._not_finite("gradient", norm)
        self.optimizer.step()
        self.losses[0] += loss
        self.losses[1] += 1
        told = {ours: found[name].item() for name, ours in _TOLD.items() if name in found.keys()}  # noqa: SIM118
        if self.parameters.vf_coef:
            told["rl/value_loss"] /= self.parameters.vf_coef
        # k3 of Schulman 2020, from the means of the ratio and of its logarithm
        told["rl/approx_kl"] = float(found["mean_ratio"]) - 1.0 + float(found["kl_approx"])
        return {"loss": loss, "grad_norm": norm, **told}

    # -- inside ----------------------------------------------------------------------------------------

    def _seed(self, purpose: str) -> int:
        return self.owner.derived_seed(purpose, str(self.rollouts))

    def _tell(self, event: str, **more: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(
                self.args, self.state, self.control, model=self.policy, optimizer=self.optimizer, **more
            )

    def _not_finite(self, what: str, value: float) -> Exception:
        step = self.state.global_step + self.parameters.rollout_size
        return checkpoints.not_finite(what, value, step, self.owner.settings.directory)

    def _result(self) -> TrainResult:
        history = []
        for row in self.state.log_history:
            history.append({"step": row["step"], **group_names(row)})
        loss = self.losses[0] / self.losses[1] if self.losses[1] else math.nan
        metrics = {"train/loss": loss, "train/steps": float(self.state.global_step)}
        if history:
            metrics |= {name: value for name, value in history[-1].items() if name.startswith("rl/return")}
        return TrainResult(loss, metrics, self.state.global_step, history)

    # -- checkpoints -----------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a whole checkpoint, give it its name, then delete the ones that are too many."""
        root = Path(self.args.output_dir)
        final = root / f"checkpoint-{self.state.global_step}"
        partial = root / f".{final.name}.partial"
        with checkpoints.write_errors(final):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                self._write(partial)
                checkpoints.write_manifest(partial, self.fingerprint)
                checkpoints.install_checkpoint(partial, final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            rotate_checkpoints(str(root), self.parameters.save_total_limit, None)

    def _write(self, path: Path) -> None:
        weights = {name: value.contiguous().cpu() for name, value in self.policy.state_dict().items()}
        save_file(weights, str(path / _WEIGHTS))
        torch.save(self.optimizer.state_dict(), path / _OPTIMIZER)
        running, arrays = self.environments.state()
        save_arrays(arrays, str(path / _EPISODES))
        place = {
            "rollouts": self.rollouts,
            "episodes": self.episodes,
            "recent": [[episode.total, episode.length] for episode in self.recent],
            "losses": self.losses,
            "running": running,
        }
        write_json(path / _PLACE, place)
        self.state.save_to_json(str(path / _STATE))

    def _restore(self, path: Path) -> None:
        self.policy.load_state_dict(load_file(str(path / _WEIGHTS)))
        device = next(self.policy.parameters()).device
        self.optimizer.load_state_dict(torch.load(path / _OPTIMIZER, map_location=device, weights_only=True))
        place = read_json(path / _PLACE)
        self.rollouts, self.episodes = int(place["rollouts"]), int(place["episodes"])
        self.recent.extend(Episode(float(total), int(length)) for total, length in place["recent"])
        self.losses = list(place["losses"])
        self.state = TrainerState.load_from_json(str(path / _STATE))
        self.environments.restore(place["running"], load_arrays(str(path / _EPISODES)))


def _values(batch: Any, loss: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a rollout's values were, what they should have been, and that all of them count."""
    values, returns = batch[loss.tensor_keys.value], batch[loss.tensor_keys.value_target]
    return values, returns, torch.ones_like(values)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
