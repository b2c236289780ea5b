"""A policy for an environment: an actor and a critic, each a small network over flat observations.

Tanh layers with orthogonal weights, an actor that begins near uniform and a critic of its own, as in the code
that PPO's results come from (Huang et al. 2022, "The 37 Implementation Details of PPO", details 2 and 13).
Left out: training (`trainshed.trainers.rl`) and environments (`environments`).
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from trainshed.errors import ModelError
from trainshed.files import read_json, write_json
from trainshed.policy.spaces import Actions, flatten, observation_size

FORMAT = 1
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
#: beyond so many standard deviations an observation says no more
_FAR = 10.0
_TINY = 1e-8


def categorical(logits: Tensor) -> Distribution:
    """Return the distribution over choices: ``[n, k]`` logits to one of k."""
    return Categorical(logits=logits, validate_args=False)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Distribution:
    """Return the distribution over ``[n, k]`` numbers that are independent of each other."""
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


class Actor(nn.Module):
    """From observations ``[n, d]`` to the parameters of a distribution over actions.

    For choices these are the logits ``[n, k]``; for numbers their means and standard deviations, both
    ``[n, k]``, the latter the same in every state.
    """

    def __init__(self, body: nn.Sequential, actions: Actions) -> None:
        super().__init__()
        self.body = body
        self.log_scale = nn.Parameter(torch.zeros(actions.size)) if actions.kind == "box" else None

    def forward(self, observations: Tensor) -> Any:
        """Return the logits, or means and standard deviations."""
        found = self.body(observations)
        if self.log_scale is None:
            return found
        return found, self.log_scale.exp().expand_as(found)

    def distribution(self, observations: Tensor) -> Distribution:
        """Return the distribution over actions in each of ``[n, d]`` observations."""
        found = self(observations)
        return categorical(found) if self.log_scale is None else diagonal_normal(*found)


class Policy(nn.Module):
    """An actor and a critic, and what is known about observations and actions.

    Parameters
    ----------
    observations
        As `trainshed.policy.spaces.describe_observations` gives them.
    actions
        What it acts with.
    hidden_size, num_layers
        Width and number of the layers of actor and critic each.
    activation
        ``tanh`` or ``relu``.
    normalize
        Whether observations are given mean 0 and variance 1, by what `observe` has seen.
    seed
        Of the first weights.
    """

    def __init__(
        self,
        observations: Mapping[str, Any],
        actions: Actions,
        *,
        hidden_size: int = 64,
        num_layers: int = 2,
        activation: Literal["tanh", "relu"] = "tanh",
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.observations, self.actions = dict(observations), actions
        self.shape = {
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "activation": activation,
            "normalize": normalize,
        }
        size = observation_size(observations)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = (size, *[hidden_size] * num_layers)
            self.actor = Actor(_network(layers, actions.size, activation, gain=0.01), actions)
            self.critic = _network(layers, 1, activation, gain=1.0)
        self.normalize = normalize
        if normalize:
            self.register_buffer("mean", torch.zeros(size))
            self.register_buffer("variance", torch.ones(size))
            self.register_buffer("count", torch.zeros(()))

    # -- acting ----------------------------------------------------------------------------------------

    def act(self, observation: Any, *, greedy: bool = True, generator: torch.Generator | None = None) -> Any:
        """Return an action for one observation, both as the environment has them.

        Parameters
        ----------
        observation
            Of the environment's observation space.
        greedy
            Take the likeliest action; otherwise draw one.
        generator
            What an action is drawn with, on the policy's device.
        """
        flat = flatten(self.observations, observation)[None]
        return self.actions.to_environment(self.choose(flat, greedy=greedy, generator=generator)[0])

    def choose(
        self, observations: np.ndarray, *, greedy: bool = True, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return actions ``[n]`` (choices) or ``[n, k]`` (numbers) for flat observations ``[n, d]``."""
        device = next(self.parameters()).device
        with torch.no_grad():
            found = self.actor(self.features(torch.from_numpy(observations).to(device)))
        if self.actions.kind == "discrete" and greedy:
            chosen = found.argmax(-1)
        elif self.actions.kind == "discrete":
            chosen = torch.multinomial(found.softmax(-1), 1, generator=generator)[:, 0]
        else:
            chosen, scale = found
            if not greedy:
                chosen = chosen + scale * torch.randn(chosen.shape, generator=generator, device=device)
        return np.asarray(chosen.cpu())

    # -- observations ----------------------------------------------------------------------------------

    def features(self, observations: Tensor) -> Tensor:
        """Return what actor and critic read of flat observations ``[..., d]``."""
        if not self.normalize or self.count == 0:
            return observations
        return ((observations - self.mean) * torch.rsqrt(self.variance + _TINY)).clamp(-_FAR, _FAR)

    def observe(self, observations: Tensor) -> None:
        """Take flat observations ``[n, d]`` into mean and variance (Chan et al. 1979, eq. 2.1)."""
        if not self.normalize:
            return
        added, total = float(len(observations)), float(len(observations)) + float(self.count)
        mean, variance = observations.mean(0), observations.var(0, correction=0)
        apart = mean - self.mean
        share = added / total
        spread = self.variance * (1.0 - share) + variance * share + apart.square() * share * (1.0 - share)
        self.mean.add_(apart * share)
        self.variance.copy_(spread)
        self.count.fill_(total)

    # -- files -----------------------------------------------------------------------------------------

    def save(self, path: str | Path, **more: Any) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a directory.

        Parameters
        ----------
        path
            The directory, which is there.
        **more
            JSON-able values that ``config.json`` is to hold too.
        """
        config = {
            "format": FORMAT,
            "kind": "policy",
            **more,
            "observations": self.observations,
            "actions": self.actions.to_json(),
            **self.shape,
        }
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, str(Path(path) / _WEIGHTS))
        write_json(Path(path) / _CONFIG, config)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Return a policy that was saved, for `act`; neither Gymnasium nor the environment is needed.

        Raises
        ------
        ModelError
            When there is none, or it is damaged or of another version.
        """
        place = Path(path)
        try:
            config = read_json(place / _CONFIG)
            if not isinstance(config, dict) or (config.get("kind"), config.get("format")) != (
                "policy",
                FORMAT,
            ):
                raise ModelError(
                    "this is no policy that this version reads",
                    where=str(place / _CONFIG),
                    fix="the outputs of a run of the algorithm `rl`",
                )
            shape = {name: config[name] for name in ("hidden_size", "num_layers", "activation", "normalize")}
            policy = cls(config["observations"], Actions.from_json(config["actions"]), **shape)
            policy.load_state_dict(load_file(str(place / _WEIGHTS)))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"the policy cannot be loaded: {error}", where=str(place)) from error
        return policy.to(device).eval()


def _network(sizes: tuple[int, ...], out: int, activation: str, *, gain: float) -> nn.Sequential:
    """Return layers with orthogonal weights, the last one scaled by ``gain``, and no biases at first."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [_linear(before, after, math.sqrt(2.0)), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, _linear(sizes[-1], out, gain))


def _linear(before: int, after: int, gain: float) -> nn.Linear:
    layer = nn.Linear(before, after)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
