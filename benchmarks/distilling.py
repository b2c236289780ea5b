"""Do students come near their teachers, and does online DPO learn? Over seeds, on tasks that are constructed.

Part `teacher`: a prompt names four of eight choices (``k3 k1 k6 k0 :``), an answer is three of them, drawn
with probabilities that fall from the first to the last. A teacher learns this from many answers; a student of
a quarter of its width then learns from the teacher, from the same start in the same number of steps of the
same size: by `sft` on answers that the teacher sampled, by `gkd` on the same answers and its own, by
`distillation` on its own alone. Measured on prompts that are in no training: KL(teacher, student) in nats a
token and how often both favour the same token, on answers of the teacher's; and KL(student, teacher) on
answers of the student's. The start has had 150 steps of `sft` already.

Part `online_dpo`: the task of ``benchmarks/policy.py``, in which the first choice is right; held-out share of
right answers before and after. Controls: `ties: first`, which is what TRL does, and a reward that says
nothing.

    python benchmarks/distilling.py --seeds 0 1

Leaves out: speed, real models.
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

from policy import make_rows, make_start, make_tokenizer
from trainshed.config.trainers.online_dpo import OnlineDPOParameters
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.models.build import build_llama
from trainshed.policy.sampling import Completions, Sampling, sample_completions
from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import ExactMatch
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.distillation import DistillationTrainer
from trainshed.trainers.gkd import GKDTrainer
from trainshed.trainers.online_dpo import OnlineDPOTrainer
from trainshed.trainers.pretrain import PretrainTrainer
from trainshed.trainers.sft import SFTTrainer

ANSWER = 4  # three choices and the end
CHANCES = (0.55, 0.25, 0.15, 0.05)
SETTINGS = TrainerSettings(device="cpu")
PARTS = ["teacher", "online_dpo"]
MEASURED = ("kl_teacher_student", "agreement", "kl_student_teacher")
SAMPLING = Sampling(max_new_tokens=ANSWER, stop_ids=(1,), pad_id=0)


def make_teacher(tokenizer: Any, rows: list[dict[str, str]], seed: int) -> Any:
    """Return a model that has learnt the task from answers to each prompt, anew in each round."""
    model = build_llama(
        tokenizer, seed=seed, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128, max_length=16
    )
    chance = random.Random(seed)
    told = []
    for row in rows * 8:
        named = row["prompt"].split()[:-1]
        answer = " ".join(chance.choices(named, CHANCES, k=ANSWER - 1))
        told.append({"prompt": row["prompt"], "completion": f" {answer}"})
    PretrainTrainer(
        model,
        tokenizer,
        told,
        parameters=PretrainParameters(block_size=16, prompt_loss_weight=0.0),
        arguments={
            "max_steps": 900,
            "learning_rate": 5e-3,
            "per_device_train_batch_size": 32,
            "lr_scheduler_type": "cosine",
        },
        seed=seed,
        settings=SETTINGS,
    ).train()
    return model.eval()


def make_student(tokenizer: Any, pairs: list[dict[str, str]], seed: int) -> Any:
    """Return a small model that has had a short supervised training: its own answers must mean something."""
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "max_length": 16}
    model = build_llama(tokenizer, seed=seed + 100, **shape)
    values = {
        "max_steps": 150,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 32,
        "save_strategy": "no",
        "bf16": False,
        "max_length": 16,
    }
    SFTTrainer(model, tokenizer, pairs, arguments=values, seed=seed, settings=SETTINGS).train()
    return model


def answers(model: Any, tokenizer: Any, rows: list[dict[str, str]], seed: int) -> Completions:
    """Return an answer of a model's to each prompt."""
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in rows]
    return sample_completions(model.eval(), prompts, SAMPLING, seed=seed, batch_size=512)


def nearness(student: Any, teacher: Any, tokenizer: Any, rows: list[dict[str, str]]) -> dict[str, float]:
    """Return how near a student is to its teacher on held-out prompts."""
    found = {}
    for name, speaker in (("teacher", teacher), ("student", student)):
        done = answers(speaker, tokenizer, rows, seed=1)
        length = done.mask.shape[1]
        with torch.no_grad():
            log_p, log_q = (
                model(done.input_ids, attention_mask=done.attention_mask)
                .logits[:, -length - 1 : -1][done.mask]
                .log_softmax(-1)
                for model in (teacher.eval(), student.eval())
            )
        if name == "teacher":
            found["kl_teacher_student"] = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
            found["agreement"] = (log_p.argmax(-1) == log_q.argmax(-1)).float().mean().item()
        else:
            found["kl_student_teacher"] = (log_q.exp() * (log_q - log_p)).sum(-1).mean().item()
    return found


def arms(shared: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return what trains a student, by name, from (model, tokenizer, rows with answers, teacher, seed)."""

    def sft(model: Any, tokenizer: Any, rows: Any, teacher: Any, seed: int) -> Any:
        values = {**shared, "max_length": 16}
        return SFTTrainer(model, tokenizer, rows, arguments=values, seed=seed, settings=SETTINGS)

    def gkd(lmbda: float, beta: float) -> Callable[..., Any]:
        def make(model: Any, tokenizer: Any, rows: Any, teacher: Any, seed: int) -> Any:
            own = {"lmbda": lmbda, "beta": beta, "temperature": 1.0, "max_new_tokens": ANSWER}
            values = {**shared, **own, "max_length": 16}
            return GKDTrainer(
                model, tokenizer, rows, teacher=teacher, arguments=values, seed=seed, settings=SETTINGS
            )

        return make

    def distillation(model: Any, tokenizer: Any, rows: Any, teacher: Any, seed: int) -> Any:
        values = {**shared, "max_completion_length": ANSWER}
        prompts = [{"prompt": row["prompt"]} for row in rows]
        return DistillationTrainer(
            model, tokenizer, prompts, teacher=teacher, arguments=values, seed=seed, settings=SETTINGS
        )

    return {
        "sft": sft,
        "gkd, data alone": gkd(0.0, 0.0),
        "gkd": gkd(0.5, 0.5),
        "distillation": distillation,
    }


def from_teachers(seed: int, steps: int, rates: list[float]) -> list[dict[str, Any]]:
    """Train a student in every way, and return and print a line for each."""
    tokenizer = make_tokenizer()
    rows, held_out = make_rows(4)
    teacher = make_teacher(tokenizer, rows, seed)
    told = answers(teacher, tokenizer, rows, seed=seed).texts(tokenizer)
    pairs = [
        {"prompt": row["prompt"], "completion": f" {text}"} for row, text in zip(rows, told, strict=True)
    ]
    start = make_student(tokenizer, pairs, seed)
    lines = [{"run": "start", "rate": 0.0, "seed": seed, **nearness(start, teacher, tokenizer, held_out)}]
    print(json.dumps(lines[0]), flush=True)
    for rate in rates:
        shared = {
            "max_steps": steps,
            "learning_rate": rate,
            "lr_scheduler_type": "cosine",
            "per_device_train_batch_size": 32,
            "save_strategy": "no",
            "bf16": False,
        }
        for name, make in arms(shared).items():
            model = copy.deepcopy(start)
            trainer = make(model, tokenizer, pairs, teacher, seed)
            began = time.process_time()
            trainer.train()
            seconds = time.process_time() - began
            found = nearness(model, teacher, tokenizer, held_out)
            lines.append({"run": name, "rate": rate, "seed": seed, **found, "cpu_s": round(seconds, 1)})
            print(json.dumps(lines[-1]), flush=True)
    return lines


def with_rewards(seed: int, steps: int) -> None:
    """Train a policy by online DPO, with its controls, and print a line of JSON for each."""
    tokenizer = make_tokenizer()
    rows, held_out = make_rows(3)
    start = make_start(tokenizer, rows, seed)
    for name, ties, told in (("skip", "skip", True), ("first", "first", True), ("no signal", "first", False)):
        right = WeightedRewards({"exact_match": ExactMatch()})
        silent = WeightedRewards({"nothing": lambda prompts, **columns: [0.0] * len(prompts)})
        trainer = OnlineDPOTrainer(
            copy.deepcopy(start),
            tokenizer,
            rows,
            eval_dataset=held_out * 4,
            rewards=right,
            parameters=OnlineDPOParameters(ties=ties),
            arguments={
                "max_steps": steps,
                "learning_rate": 2e-3,
                "lr_scheduler_type": "constant",
                "per_device_train_batch_size": 64,
                "per_device_eval_batch_size": 512,
                "max_new_tokens": 2,
                "max_length": 16,
                "missing_eos_penalty": 0.5,
                "temperature": 1.0,
                "save_strategy": "no",
                "bf16": False,
            },
            seed=seed,
            settings=SETTINGS,
        )
        before = trainer.evaluate()
        trainer.rewards = right if told else silent
        began = time.process_time()
        trainer.train()
        seconds = time.process_time() - began
        trainer.rewards = right
        after = trainer.evaluate()
        line = {
            "run": f"online_dpo, ties {name}" if told else "online_dpo, no signal",
            "seed": seed,
            "before": before["eval/reward_exact_match"],
            "after": after["eval/reward_exact_match"],
            "kl": after["eval/kl"],
            "cpu_s": round(seconds, 1),
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    """Print a line of JSON for each run, and a table of the students at their best learning rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rates", type=float, nargs="*", default=[3e-3, 1e-2])
    given = parser.parse_args()
    lines = []
    for seed in given.seeds:
        if "teacher" in given.parts:
            lines += from_teachers(seed, given.steps, given.rates)
        if "online_dpo" in given.parts:
            with_rewards(seed, given.steps)
    best: dict[str, dict[str, float]] = {}
    for name, rate in dict.fromkeys((line["run"], line["rate"]) for line in lines):
        rows = [line for line in lines if (line["run"], line["rate"]) == (name, rate)]
        mean = {"rate": rate, **{key: statistics.mean(row[key] for row in rows) for key in MEASURED}}
        if name not in best or mean[MEASURED[0]] < best[name][MEASURED[0]]:
            best[name] = mean
    for name, mean in best.items():
        print(f"| {name} | {mean['rate']:g} | {' | '.join(f'{mean[key]:.3f}' for key in MEASURED)} |")


if __name__ == "__main__":
    main()
