"""Do the policy trainers learn? Held-out reward and KL of PPO, XPO and Nash-MD, over seeds.

The task is constructed so that what is right can be checked and no data is needed: a prompt names some of
eight choices, the first of which is right (``k3 k1 k6 k0 :`` wants ``k3``). A tiny Llama first learns to
answer with any one of them, so that it begins at chance; then each trainer sees rewards alone. Prompts it is
measured on are in no training. The control is the same training with a reward that says nothing, which could
win only if the measurement were broken.

    python benchmarks/policy.py --seeds 3

Leaves out: speed, real models.
"""

import argparse
import itertools
import json
import random
import statistics
import time
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trainshed.config.trainers.nash_md import NashMDParameters
from trainshed.config.trainers.ppo import PPOParameters
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.config.trainers.xpo import XPOParameters
from trainshed.models.build import build_llama
from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import ExactMatch
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.nash_md import NashMDTrainer
from trainshed.trainers.ppo import PPOTrainer
from trainshed.trainers.pretrain import PretrainTrainer
from trainshed.trainers.xpo import XPOTrainer

CHOICES = [f"k{number}" for number in range(8)]
HELD_OUT = 80
#: what each run is: its trainer, its own parameters, its arguments
RUNS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "ppo": (
        PPOTrainer,
        PPOParameters,
        {"rollout_batch_size": 128, "ppo_epochs": 4, "kl_coef": 0.02},
        {"max_steps": 1200, "learning_rate": 3e-3, "lr_scheduler_type": "linear"},
    ),
    "xpo": (
        XPOTrainer,
        XPOParameters,
        {"rollout_batch_size": 64},
        {"max_steps": 400, "learning_rate": 2e-3, "lr_scheduler_type": "constant"},
    ),
    "nash_md": (
        NashMDTrainer,
        NashMDParameters,
        {"rollout_batch_size": 64, "preference": "hard"},
        {"max_steps": 350, "learning_rate": 3e-3, "lr_scheduler_type": "constant"},
    ),
}
RUNS["ppo, no signal"] = RUNS["ppo"]
SHARED = {"max_new_tokens": 2, "missing_eos_penalty": 0.5}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the choices, a word a token."""
    known = {word: number for number, word in enumerate(["<pad>", "<eos>", ":", *CHOICES])}
    words = Tokenizer(models.WordLevel(known, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def make_rows(choices: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return prompts to learn from and held out."""
    rows = [{"prompt": f"{' '.join(c)} :", "answer": c[0]} for c in itertools.permutations(CHOICES, choices)]
    random.Random(0).shuffle(rows)
    return rows[HELD_OUT:1500], rows[:HELD_OUT]


def make_start(tokenizer: Any, rows: list[dict[str, str]], seed: int) -> Any:
    """Return a model that answers with any of a prompt's choices."""
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64, "max_length": 16}
    model = build_llama(tokenizer, seed=seed, **shape)
    chance = random.Random(seed)
    told = [
        {"prompt": row["prompt"], "completion": f" {chance.choice(row['prompt'].split()[:-1])}"}
        for row in rows * 3
    ]
    PretrainTrainer(
        model,
        tokenizer,
        told,
        parameters=PretrainParameters(block_size=10, prompt_loss_weight=0.0),
        arguments={
            "max_steps": 700,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 32,
            "lr_scheduler_type": "cosine",
        },
        seed=seed,
        settings=TrainerSettings(device="cpu"),
    ).train()
    return model


def measure(name: str, seed: int, choices: int) -> dict[str, float]:
    """Train once and return the held-out reward before and after, and the KL."""
    tokenizer = make_tokenizer()
    rows, held_out = make_rows(choices)
    kind, parameters, own, arguments = RUNS[name]
    if name.endswith("no signal"):
        rewards = WeightedRewards({"nothing": lambda prompts, **columns: [0.0] * len(prompts)})
    else:
        rewards = WeightedRewards({"exact_match": ExactMatch()})
    trainer = kind(
        make_start(tokenizer, rows, seed),
        tokenizer,
        rows,
        rewards,
        eval_prompts=held_out * 4,
        parameters=parameters(**SHARED, **own),
        arguments={"per_device_train_batch_size": 64, **arguments},
        seed=seed,
        settings=TrainerSettings(device="cpu"),
    )
    trained, trainer.rewards = trainer.rewards, WeightedRewards({"exact_match": ExactMatch()})
    before = trainer.evaluate()
    trainer.rewards = trained
    started = time.process_time()
    trainer.train()
    seconds = time.process_time() - started
    trainer.rewards = WeightedRewards({"exact_match": ExactMatch()})
    after = trainer.evaluate()
    return {
        "before": before["eval/reward_exact_match"],
        "after": after["eval/reward_exact_match"],
        "kl": after["eval/kl"],
        "cpu_s": seconds,
    }


def main() -> None:
    """Print a table, and a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--choices", type=int, default=4, help="choices in a prompt")
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for name in given.runs:
        for seed in range(given.seeds):
            values = measure(name, seed, given.choices)
            found.setdefault(name, []).append(values)
            print(json.dumps({"run": name, "seed": seed, **values}), flush=True)
    print("| run | before | after: mean (lowest) | KL, nats a completion | CPU s |")
    print("| :-- | --: | --: | --: | --: |")
    for name, rows in found.items():
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        lowest = min(row["after"] for row in rows)
        print(
            f"| {name} | {mean['before']:.2f} | {mean['after']:.2f} ({lowest:.2f}) | {mean['kl']:.2f} "
            f"| {mean['cpu_s']:.0f} |"
        )


if __name__ == "__main__":
    main()
