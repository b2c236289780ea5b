"""Environments of a few lines: one to learn, and some that do what an environment should not."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Signs(gymnasium.Env):
    """Ten steps, each with one of three signs; the action of the same number is worth 1, others nothing."""

    observation_space = spaces.Discrete(3, start=1)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, length=10):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        self.sign = int(self.np_random.integers(3))
        return self.sign + 1, {}

    def step(self, action):
        reward = float(action - 5 == self.sign)
        self.left -= 1
        self.sign = int(self.np_random.integers(3))
        return self.sign + 1, reward, False, self.left == 0, {}


class Corridor(gymnasium.Env):
    """Counts steps; ends after ``end`` of them, or is cut after ``cut``; each step is worth its number."""

    observation_space = spaces.Box(0.0, np.inf, (1,), dtype=np.float32)
    action_space = spaces.Box(np.array([-1.0, 0.0]), np.array([3.0, np.inf]), dtype=np.float64)

    def __init__(self, end=None, cut=None):
        self.end, self.cut = end, cut
        self.taken = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return np.array([0.0]), {}

    def step(self, action):
        self.taken.append(action)
        self.at += 1
        return np.array([self.at]), float(self.at), self.at == self.end, self.at == self.cut, {}


class Remembering(Corridor):
    """Keeps something from one episode to the next."""

    def __init__(self):
        super().__init__(cut=3)
        self.offset = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.offset += 1.0
        return np.array([self.offset]), {}

    def step(self, action):
        observation, *rest = super().step(action)
        return observation + self.offset, *rest


class Broken(Corridor):
    """Gives a reward that is no number in its fifth step."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, float("nan") if self.at == 5 else reward, *rest


class Huge(Corridor):
    """Gives rewards whose squares are not finite numbers any more."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward * 1e30, *rest


def not_an_environment():
    """Return something else."""
    return object()
