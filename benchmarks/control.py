"""Does `rl` solve a control task? Return of the trained policy over seeds, beside a random one.

PPO with the parameters that are its defaults, for as many steps in the environments as are given. What is
measured is the policy that the training ends with, not the best one on its way, on episodes that no training
has seen, with the likeliest action. The random policy plays the same episodes.

    python benchmarks/control.py --seeds 3
    python benchmarks/control.py --env Acrobot-v1 --set total_timesteps=500000

Leaves out: tuning for a task, speed beside other libraries.
"""

import argparse
import functools
import json
import statistics
import time
from typing import Any

import numpy as np
import yaml

from trainshed.config.trainers.rl import RLParameters
from trainshed.models.seeds import derive_seed
from trainshed.policy.environments import Episode, make_environment, play
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.rl import RLTrainer

#: mean return at which Gymnasium's registry says that a task is solved
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0}


def random_episodes(trainer: RLTrainer, seeds: list[int]) -> list[Episode]:
    """Play with actions that follow from nothing."""
    generator, actions = np.random.default_rng(0), trainer.policy.actions

    def choose(observations: np.ndarray) -> np.ndarray:
        if actions.kind == "discrete":
            return generator.integers(actions.size, size=len(observations))
        return generator.uniform(-1.0, 1.0, size=(len(observations), actions.size))

    return play(make(trainer), choose, seeds)


def make(trainer: RLTrainer) -> Any:
    """Return what makes the trainer's environment."""
    own = trainer.parameters
    return functools.partial(make_environment, own.env_name, own.env_kwargs)


def measure(parameters: RLParameters, seed: int, episodes: int) -> dict[str, float]:
    """Train once; return how good the policy is, and a random one, and what it took."""
    trainer = RLTrainer(parameters=parameters, seed=seed, settings=TrainerSettings(device="cpu"))
    started = time.process_time()
    result = trainer.train()
    seconds = time.process_time() - started
    seeds = [derive_seed(seed, "control", "measure", str(number)) for number in range(episodes)]
    totals = [
        episode.total
        for episode in play(make(trainer), functools.partial(trainer.policy.choose, greedy=True), seeds)
    ]
    chance = [episode.total for episode in random_episodes(trainer, seeds)]
    return {
        "steps": result.steps,
        "return": statistics.fmean(totals),
        "lowest": min(totals),
        "random": statistics.fmean(chance),
        "cpu_s": seconds,
    }


def main() -> None:
    """Print a line of JSON for each seed, and a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=100, help="episodes that a policy is measured on")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="parameters of the algorithm"
    )
    given = parser.parse_args()
    # 488 rollouts of 1,024 steps
    values: dict[str, Any] = {"env_name": given.env, "total_timesteps": 499_712, "eval_episodes": 0}
    values.update({key: yaml.safe_load(text) for key, _, text in (item.partition("=") for item in given.set)})
    parameters = RLParameters.model_validate(values)
    rows = []
    for seed in range(given.seeds):
        rows.append(measure(parameters, seed, given.episodes))
        print(json.dumps({"seed": seed, **rows[-1]}), flush=True)
    print(f"\n{given.env}, {rows[0]['steps']:,.0f} steps, {given.episodes} episodes a seed")
    print("| seed | return: mean | lowest episode | random policy | CPU s |")
    print("| :-- | --: | --: | --: | --: |")
    for seed, row in enumerate(rows):
        numbers = f"{row['return']:.1f} | {row['lowest']:.1f} | {row['random']:.1f} | {row['cpu_s']:.0f}"
        print(f"| {seed} | {numbers} |")
    mean = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    lowest = min(row["lowest"] for row in rows)
    print(f"| all | {mean['return']:.1f} | {lowest:.1f} | {mean['random']:.1f} | {mean['cpu_s']:.0f} |")
    if given.env in SOLVED:
        told = "solved" if mean["return"] >= SOLVED[given.env] else "not solved"
        print(f"\n{told}: {mean['return']:.1f}, wanted {SOLVED[given.env]:g}")


if __name__ == "__main__":
    main()
