"""Seconds a step and peak memory of our trainers on TRL, beside the same TRL trainer driven directly.

    python benchmarks/step_time.py                           # a small Llama on the CPU
    python benchmarks/step_time.py --trainers sft --size 0.5b --device cuda --dtype bfloat16

Both sides train the same model on the same rows with the same arguments in one process, by turns; each side's
time is the mean over all steps after the first few, from the end of one to the end of the next, of its
fastest round. Peak memory is that of a process that runs one side alone. What our side adds is the guard
against numbers that are not finite, the bookkeeping of exact checkpoints, progress and `metrics.jsonl`. With
``--size`` a random-weight model of that size is trained, and tokens a second and the share of the device's
arithmetic that is used are told (model FLOPs: 6 N a token, and attention's 12 L d T).

Left out: what is learned (`learning.py`); Mamba beside a transformer (`mamba.py`).
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from trainshed.registry import load_attribute
from trainshed.trainers.base import TrainerSettings

SKIPPED = 3
SHAPES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4},
    "0.5b": {
        "hidden_size": 1280,
        "intermediate_size": 3456,
        "num_hidden_layers": 22,
        "num_attention_heads": 20,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 20,
        "num_attention_heads": 16,
    },
}
WORDS = 4_000
OURS = {
    "sft": "trainshed.trainers.sft:SFTTrainer",
    "dpo": "trainshed.trainers.dpo:DPOTrainer",
    "kto": "trainshed.trainers.kto:KTOTrainer",
    "reward": "trainshed.trainers.reward:RewardTrainer",
    "grpo": "trainshed.trainers.grpo:GRPOTrainer",
}
THEIRS = {
    "sft": ("trl:SFTTrainer", "trl:SFTConfig"),
    "dpo": ("trl:DPOTrainer", "trl:DPOConfig"),
    "kto": ("trl:KTOTrainer", "trl:KTOConfig"),
    "reward": ("trl:RewardTrainer", "trl:RewardConfig"),
    "grpo": ("trl:GRPOTrainer", "trl:GRPOConfig"),
}
MORE: dict[str, dict[str, Any]] = {
    "grpo": {"num_generations": 4, "max_completion_length": 16, "beta": 0.02},
}
#: floating-point operations a second of a device, of the kind that a dtype takes; for --device cuda
PEAKS = {("H200", "bfloat16"): 989e12, ("H100", "bfloat16"): 989e12, ("A100", "bfloat16"): 312e12}


class StepTimes(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self, device: str) -> None:
        self.ends: list[float] = []
        self._device = device

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the clock."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the mean seconds of a step."""
        ends = self.ends[SKIPPED:]
        return (ends[-1] - ends[0]) / (len(ends) - 1)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of numbered words."""
    known = {word: number for number, word in enumerate(["<pad>", "</s>", *(f"w{n}" for n in range(WORDS))])}
    words = Tokenizer(models.WordLevel(known, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def make_model(size: str, *, judge: bool, device: str, dtype: str, length: int) -> Any:
    """Return a random Llama."""
    config = LlamaConfig(
        vocab_size=WORDS + 2 if size == "small" else 32_000,
        max_position_embeddings=max(2 * length, 512),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        num_labels=1,
        **SHAPES[size],
    )
    torch.manual_seed(0)
    kind = LlamaForSequenceClassification if judge else LlamaForCausalLM
    return kind(config).to(device=device, dtype=getattr(torch, dtype))


def make_rows(trainer: str, count: int, length: int) -> list[dict[str, Any]]:
    """Return rows of ``length`` tokens in the format that a trainer takes."""
    chance = random.Random(0)

    def words(number: int) -> str:
        return " ".join(f"w{chance.randrange(WORDS)}" for _ in range(number))

    half = length // 2
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt, answer = words(half), " " + words(half - 1)
        if trainer == "sft":
            rows.append({"prompt": prompt, "completion": answer})
        elif trainer == "grpo":
            rows.append({"prompt": prompt})
        elif trainer == "kto":
            rows.append({"prompt": prompt, "completion": answer, "label": number % 2 == 0})
        else:
            rows.append({"prompt": prompt, "chosen": answer, "rejected": " " + words(half - 1)})
    return rows


def length_reward(completions: list[str], **columns: Any) -> list[float]:
    """Return a reward that costs nothing."""
    return [float(len(completion) % 7) for completion in completions]


def make_ours(
    trainer: str, model: Any, tokenizer: Any, rows: Any, arguments: Any, times: StepTimes, directory: Path
) -> Callable[[], Any]:
    """Return what trains with our trainer."""
    more = {"rewards": {"length": length_reward}} if trainer == "grpo" else {}
    settings = TrainerSettings(device=model.device.type, directory=directory)
    kind = load_attribute(OURS[trainer])
    made = kind(
        model, tokenizer, rows, arguments=arguments, seed=0, settings=settings, callbacks=[times], **more
    )
    return made.train


def make_trl(
    trainer: str, model: Any, tokenizer: Any, rows: Any, arguments: Any, times: StepTimes, directory: Path
) -> Callable[[], Any]:
    """Return what trains with TRL's trainer, given the same."""
    kind, config = (load_attribute(name) for name in THEIRS[trainer])
    more = {"reward_funcs": length_reward} if trainer == "grpo" else {}
    own = {"use_cpu": model.device.type == "cpu", "report_to": [], "seed": 0, "disable_tqdm": True}
    made = kind(
        model=model,
        processing_class=tokenizer,
        args=config(output_dir=str(directory), **own, **arguments),
        train_dataset=Dataset.from_list(rows),
        callbacks=[times],
        **more,
    )
    return made.train


def measure(side: str, trainer: str, given: argparse.Namespace) -> dict[str, float]:
    """Train for some steps on one side and return the mean seconds of a step."""
    tokenizer = make_tokenizer()
    model = make_model(
        given.size, judge=trainer == "reward", device=given.device, dtype="float32", length=given.length
    )
    rows = make_rows(trainer, given.batch * (given.steps + 2), given.length)
    arguments = {
        "per_device_train_batch_size": given.batch,
        "max_steps": given.steps,
        "learning_rate": 1e-4,
        "logging_steps": 10,
        "bf16": given.dtype == "bfloat16",
        "save_strategy": "no",
        **({} if trainer == "grpo" else {"max_length": given.length}),
        **MORE.get(trainer, {}),
    }
    times = StepTimes(given.device)
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    make = make_ours if side == "ours" else make_trl
    with tempfile.TemporaryDirectory() as directory:
        train = make(trainer, model, tokenizer, rows, arguments, times, Path(directory))
        started = time.perf_counter()
        train()
        whole = time.perf_counter() - started
    found = {"step_s": times.seconds(), "whole_s": whole, "parameters": float(model.num_parameters())}
    if given.device == "cuda":
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    else:
        found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def peak_memory(side: str, trainer: str, given: argparse.Namespace) -> float:
    """Return the peak MiB of a process that runs one side alone."""
    options = [
        *("--batch", given.batch, "--length", given.length, "--size", given.size),
        *("--device", given.device, "--dtype", given.dtype, "--trainers", trainer, "--steps", 2 * SKIPPED),
    ]
    command = [sys.executable, __file__, "--side", side, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def utilisation(given: argparse.Namespace, step_s: float, parameters: float) -> str:
    """Return tokens a second, and the share of the device's arithmetic where its peak is known."""
    tokens = given.batch * given.length / step_s
    shape = SHAPES[given.size]
    flops = 6 * parameters + 12 * shape["num_hidden_layers"] * shape["hidden_size"] * given.length
    line = f"{tokens:,.0f} tokens/s"
    name = torch.cuda.get_device_name() if given.device == "cuda" else ""
    peak = next(
        (peak for (known, dtype), peak in PEAKS.items() if known in name and dtype == given.dtype), None
    )
    return (
        line if peak is None else f"{line}, {100 * tokens * flops / peak:.1f} % of {peak / 1e12:.0f} TFLOP/s"
    )


def main() -> None:
    """Print a table, and a line of JSON for each side of each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trainers", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--size", choices=list(SHAPES), default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.trainers[0], given)))
        return
    lines = []
    for trainer in given.trainers:
        found: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
        for number in range(given.rounds):
            for side in ("ours", "trl") if number % 2 == 0 else ("trl", "ours"):
                values = measure(side, trainer, given)
                found[side].append(values)
                print(json.dumps({"trainer": trainer, "side": side, "round": number, **values}), flush=True)
        ours, trl = (min(row["step_s"] for row in found[side]) for side in ("ours", "trl"))
        memory = [peak_memory(side, trainer, given) for side in ("ours", "trl")]
        line = f"| `{trainer}` | {ours * 1e3:.1f} ms | {trl * 1e3:.1f} ms | {100 * (ours / trl - 1):+.1f} % |"
        line += f" {memory[0]:.0f} MiB | {memory[1]:.0f} MiB |"
        if given.device == "cuda" or given.size != "small":
            line += f" {utilisation(given, ours, found['ours'][0]['parameters'])} |"
        lines.append(line)
    print("| trainer | ours, a step | TRL, a step | more | ours, peak | TRL, peak |")
    print("| :-- | --: | --: | --: | --: | --: |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
