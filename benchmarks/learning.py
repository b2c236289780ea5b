"""Does each trainer learn, on data it has not seen? Over seeds, from starts that could have won.

The task is that of `policy.py`: a prompt names some of several choices, the first of which is right, and the
start answers with any of them. Preference pairs are the right choice and another one of the prompt.

    python benchmarks/learning.py --seeds 3
    python benchmarks/learning.py --runs dpo kto chain --seeds 1

| run | what is measured on held-out prompts |
| dpo, kto | how often the right one of two answers is the likelier, from the same pairs |
| reward | how often the reward model gives the right one of two answers more |
| ppo, grpo, rloo | how often a sampled answer is right, learned from rewards alone |
| chain | the same, of supervised training on answers of which some are wrong; then with PPO |

Left out: speed (`step_time.py`), classifiers (`classification.py`), language models (`mamba.py`).
"""

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaForSequenceClassification

import policy
from trainshed.config.trainers.ppo import PPOParameters
from trainshed.data.conversion import convert
from trainshed.data.formats import RowFormat
from trainshed.evaluation.preferences import preference_margins, preference_metrics
from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import ExactMatch
from trainshed.rewards.reward_model import RewardModel
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.dpo import DPOTrainer
from trainshed.trainers.grpo import GRPOTrainer
from trainshed.trainers.kto import KTOTrainer
from trainshed.trainers.ppo import PPOTrainer
from trainshed.trainers.reward import RewardTrainer
from trainshed.trainers.rloo import RLOOTrainer
from trainshed.trainers.sft import SFTTrainer

CHOICES = 4
#: share of demonstrations that are right: what supervised training can reach by itself
RIGHT_DEMONSTRATIONS = 0.6
COMMON = {"bf16": False, "save_strategy": "no", "per_device_train_batch_size": 32}
PREFERENCES: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpo": (DPOTrainer, {"max_steps": 1000, "learning_rate": 2e-3}),
    "kto": (KTOTrainer, {"max_steps": 1800, "learning_rate": 2e-3, "beta": 0.5}),
}
GROUPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo": (GRPOTrainer, {"beta": 0.02, "max_steps": 1400}),
    "rloo": (RLOOTrainer, {"beta": 0.02, "max_steps": 1600}),
}
GROUP_ARGUMENTS = {
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 64,
    "num_generations": 16,
    "max_completion_length": 2,
    "max_steps": 800,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "linear",
    "bf16": False,
    "save_strategy": "no",
}
JUDGE = {"max_steps": 2400, "learning_rate": 1e-3, "weight_decay": 0.1}
SETTINGS = TrainerSettings(device="cpu")


def pairs(rows: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Return a preference pair for each prompt."""
    chance, found = random.Random(seed), []
    for row in rows:
        wrong = chance.choice(row["prompt"].split()[1:-1])
        found.append({"prompt": row["prompt"], "chosen": f" {row['answer']}", "rejected": f" {wrong}"})
    return found


def unpaired(rows: list[dict[str, str]], seed: int) -> list[Any]:
    """Return each pair as a good and a bad answer, in the order in which `data` gives them to a trainer."""
    placed = [(f"pair {number}", row) for number, row in enumerate(rows, 1)]
    source = RowFormat("preference", conversational=False)
    size = int(COMMON["per_device_train_batch_size"])
    return [row for _, row in convert(placed, source, "unpaired", seed=seed, batch_size=size)[0]]


def preferring(name: str, seed: int) -> dict[str, float]:
    """Train on pairs and return how often the right answer is the likelier, before and after."""
    tokenizer = policy.make_tokenizer()
    rows, held_out = policy.make_rows(CHOICES)
    model = policy.make_start(tokenizer, rows, seed)
    held_pairs, train = pairs(held_out, seed), pairs(rows, seed)

    def accuracy() -> float:
        margins = preference_margins(model, tokenizer, held_pairs)
        return preference_metrics(margins)["preference/accuracy"]

    before = accuracy()
    kind, arguments = PREFERENCES[name]
    data = unpaired(train, seed) if name == "kto" else train
    kind(model, tokenizer, data, arguments={**COMMON, **arguments}, seed=seed, settings=SETTINGS).train()
    return {"before": before, "after": accuracy()}


def sampled_pairs(model: Any, tokenizer: Any, rows: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Return pairs of which the wrong answer is the policy's own, as people who compare answers see them."""
    prompts = tokenizer([row["prompt"] for row in rows], return_tensors="pt")  # all of one length
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        found = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            do_sample=True,
            temperature=1.5,
            max_new_tokens=2,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    texts = tokenizer.batch_decode(found[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    made = []
    for row, text in zip(pairs(rows, seed), texts, strict=True):
        own = {"rejected": f" {text.strip()}"} if text.strip() != row["chosen"].strip() else {}
        made.append(row | own)
    return made


def malformed_pairs(rows: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Return pairs of which the wrong answer is none: nothing, a mark, two choices, or one not named."""
    chance, made = random.Random(seed + 1), []
    for row in pairs(rows, seed):
        two = " ".join(chance.choices(policy.CHOICES, k=2))
        absent = chance.choice([choice for choice in policy.CHOICES if choice not in row["prompt"]])
        made.append(row | {"rejected": f" {chance.choice(['', ':', two, absent])}"})
    return made


def make_judge(
    tokenizer: Any, start: Any, train: Any, held_out: Any, seed: int
) -> tuple[Any, dict[str, float]]:
    """Train a reward model that begins as a language model; return it and its accuracy before and after."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = copy.deepcopy(start.config)
        config.num_labels = 1
        judge = LlamaForSequenceClassification(config)
    judge.model.load_state_dict(start.model.state_dict())
    trainer = RewardTrainer(
        judge,
        tokenizer,
        train,
        eval_dataset=held_out,
        arguments={**COMMON, **JUDGE},
        seed=seed,
        settings=SETTINGS,
    )
    before = trainer.evaluate()["eval/accuracy"]
    trainer.train()
    return trainer.model, {"before": before, "after": trainer.evaluate()["eval/accuracy"]}


def judging(name: str, seed: int) -> dict[str, float]:
    """Return the accuracy of a reward model before and after its training."""
    tokenizer = policy.make_tokenizer()
    rows, held_out = policy.make_rows(CHOICES)
    start = policy.make_start(tokenizer, rows, seed)
    return make_judge(tokenizer, start, pairs(rows, seed), pairs(held_out, seed), seed)[1]


def grouping(name: str, seed: int) -> dict[str, float]:
    """Train on rewards of completions beside each other; return the reward before and after, and the KL."""
    tokenizer = policy.make_tokenizer()
    rows, held_out = policy.make_rows(CHOICES)
    kind, arguments = GROUPS[name]
    trainer = kind(
        policy.make_start(tokenizer, rows, seed),
        tokenizer,
        rows,
        eval_dataset=held_out,
        rewards={"exact_match": ExactMatch()},
        arguments={**GROUP_ARGUMENTS, **arguments},
        seed=seed,
        settings=SETTINGS,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    return {"before": before["eval/reward"], "after": after["eval/reward"], "kl": after["eval/kl"]}


def playing(name: str, seed: int) -> dict[str, float]:
    """Return what `policy.py` measures of PPO."""
    found = policy.measure(name, seed, CHOICES)
    return {key: found[key] for key in ("before", "after", "kl")}


def spaced(judge: RewardModel) -> Callable[..., list[float]]:
    """Return a judge of answers behind a space, which a tokenizer of whole words does not give back."""
    return lambda prompts, completions, **columns: judge(prompts, [f" {text}" for text in completions])


def chaining(name: str, seed: int) -> dict[str, float]:
    """Return the true reward of supervised training alone (before), and of reward model and PPO after it."""
    tokenizer = policy.make_tokenizer()
    rows, held_out = policy.make_rows(CHOICES)
    chance = random.Random(seed)
    told = []
    for row in rows:
        right = chance.random() < RIGHT_DEMONSTRATIONS
        answer = row["answer"] if right else chance.choice(row["prompt"].split()[1:-1])
        told.append({"prompt": row["prompt"], "completion": f" {answer}"})
    model = policy.make_start(tokenizer, rows, seed)
    sft = SFTTrainer(
        model,
        tokenizer,
        told,
        arguments={**COMMON, "max_steps": 600, "learning_rate": 2e-3, "completion_only_loss": True},
        seed=seed,
        settings=SETTINGS,
    )
    sft.train()
    told_apart = pairs(rows, seed) + malformed_pairs(rows, seed)
    told_apart += sampled_pairs(model.eval(), tokenizer, rows, seed)
    judge, _ = make_judge(tokenizer, model, told_apart, pairs(held_out, seed), seed)
    _, _, own, arguments = policy.RUNS["ppo"]
    trainer = PPOTrainer(
        model,
        tokenizer,
        rows,
        WeightedRewards({"reward_model": spaced(RewardModel(model=judge, tokenizer=tokenizer))}),
        eval_prompts=held_out * 4,
        parameters=PPOParameters(**policy.SHARED, **{**own, "kl_coef": 0.05}),
        arguments={"per_device_train_batch_size": 64, **arguments, "max_steps": 1500},
        seed=seed,
        settings=SETTINGS,
    )
    learned, truth = trainer.rewards, WeightedRewards({"exact_match": ExactMatch()})
    trainer.rewards = truth
    before = trainer.evaluate()["eval/reward_exact_match"]
    trainer.rewards = learned
    trainer.train()
    trainer.rewards = truth
    after = trainer.evaluate()
    return {"before": before, "after": after["eval/reward_exact_match"], "kl": after["eval/kl"]}


RUNS: dict[str, Callable[[str, int], dict[str, float]]] = {
    "dpo": preferring,
    "kto": preferring,
    "reward": judging,
    "ppo": playing,
    "grpo": grouping,
    "rloo": grouping,
    "chain": chaining,
}


def main() -> None:
    """Print a line of JSON for each run, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for name in given.runs:
        for seed in range(given.seeds):
            started = time.process_time()
            values = RUNS[name](name, seed)
            values["cpu_s"] = time.process_time() - started
            found.setdefault(name, []).append(values)
            print(json.dumps({"run": name, "seed": seed, **values}), flush=True)
    print("| run | before | after: mean (lowest) | KL, nats a completion | CPU s |")
    print("| :-- | --: | --: | --: | --: |")
    for name, rows in found.items():
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        lowest = min(row["after"] for row in rows)
        kl = f"{mean['kl']:.2f}" if "kl" in mean else ""
        print(
            f"| `{name}` | {mean['before']:.2f} | {mean['after']:.2f} ({lowest:.2f}) | {kl} "
            f"| {mean['cpu_s']:.0f} |"
        )


if __name__ == "__main__":
    main()
