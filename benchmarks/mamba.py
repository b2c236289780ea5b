"""Mamba-2 beside a Llama of the same size: perplexity after the same tokens, and the speed of a step.

Perplexity: both read the same batches of the same documents with the same tokenizer, through the same trainer
(`MambaTrainer` takes any language model). Documents are the standard library's modules: the passages of the
built-in corpus that are about one module, joined. The Llama gets the feed-forward width that makes it as
large as the Mamba. Each has its best learning rate of one list, chosen on validation documents as the mean
over seeds, and is reported on test documents.

Speed: a step is forward, backward and AdamW, over the same number of tokens in rows of each length; the Llama
with the faster of its two kinds of attention. CPU seconds, for the machine may be shared.

    OMP_NUM_THREADS=1 python benchmarks/mamba.py perplexity
    OMP_NUM_THREADS=1 python benchmarks/mamba.py speed

Left out: GPUs, and models of a size that is used.
"""

import argparse
import itertools
import json
import math
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from trainshed.config.trainers.mamba import Mamba2Shape, MambaParameters
from trainshed.data.builtin import build_corpus
from trainshed.data.splits import split_of
from trainshed.models.build import build_llama
from trainshed.models.mamba import build_mamba2
from trainshed.models.tokenizers import train_byte_bpe
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.mamba import MambaTrainer
from trainshed.trainers.token_loss import weighted_token_loss

KINDS = ("mamba", "llama")
#: most that the two sizes may differ
_SAME = 0.03
#: longest rows on which plain attention is tried
_PLAIN = 1024


def documents(held_out: int) -> dict[str, list[str]]:
    """Return the documents of each split; a class with its methods is in one split as a whole."""
    found: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "test": {}}
    for passage in build_corpus().passages:
        split = split_of(str(passage.metadata["group"]))
        found[split].setdefault(passage.doc_id, []).append(passage.text)
    texts = {split: ["\n\n".join(part) for part in parts.values()] for split, parts in found.items()}
    return {"train": texts["train"], **{name: some(texts[name], held_out) for name in ("validation", "test")}}


def some(texts: list[str], letters: int) -> list[str]:
    """Return documents in an order of no meaning, until they have so many letters."""
    mixed = random.Random(0).sample(texts, len(texts))
    before = itertools.accumulate(map(len, mixed), initial=0)
    return [text for text, done in zip(mixed, before, strict=False) if done < letters]


def size(model: Any) -> int:
    """Return how many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def make(kind: str, tokenizer: Any, given: argparse.Namespace, seed: int, length: int) -> Any:
    """Return a model with random weights; the Llama is as large as the Mamba."""
    shape = Mamba2Shape(
        hidden_size=given.hidden_size,
        num_layers=given.mamba_layers,
        head_dim=given.head_dim,
        state_size=given.state_size,
        chunk_size=given.chunk_size,
    )
    mamba: Any = build_mamba2(tokenizer, shape, seed=seed)
    if kind == "mamba":
        return mamba
    width = {"hidden_size": given.hidden_size, "num_layers": given.llama_layers, "num_heads": given.heads}

    def llama(inner: int) -> Any:
        return build_llama(tokenizer, intermediate_size=inner, max_length=length, seed=seed, **width)

    without, one = size(llama(8)), 3 * given.hidden_size * given.llama_layers
    made = llama(8 + 8 * round((size(mamba) - without) / one / 8))
    if abs(size(made) / size(mamba) - 1) > _SAME:
        raise SystemExit(f"{size(made)} weights against {size(mamba)}: choose other layers")
    made.set_attn_implementation("sdpa" if length > 1024 else "eager")
    return made


def perplexity(given: argparse.Namespace) -> None:
    """Train each kind with each learning rate and seed, and print what came out."""
    texts = documents(given.held_out)
    tokenizer = train_byte_bpe(texts["train"], vocab_size=given.vocab_size)
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for path in given.add:
        for line in Path(path).read_text().splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                found.setdefault((row["kind"], row["learning_rate"]), []).append(row)
    for seed in given.seeds:
        for rate in given.learning_rates:
            for kind in given.kinds:
                model = make(kind, tokenizer, given, seed, given.block_size)
                row = train(model, tokenizer, texts, given, rate, seed)
                found.setdefault((kind, rate), []).append(row)
                print(json.dumps({"kind": kind, "learning_rate": rate, "seed": seed, **row}), flush=True)
    print("| model | weights | learning rate | validation | test: mean (each seed) | bits a byte | CPU s |")
    print("| :-- | --: | --: | --: | :-- | --: | --: |")
    for kind in given.kinds:
        rates = [rate for name, rate in found if name == kind]
        rate = min(rates, key=lambda rate: mean(found[kind, rate], "validation"))
        rows = found[kind, rate]
        each = ", ".join(f"{row['test']:.2f}" for row in rows)
        print(
            f"| {kind} | {size(make(kind, tokenizer, given, 0, given.block_size)):,} | {rate:g} "
            f"| {mean(rows, 'validation'):.2f} | {mean(rows, 'test'):.2f} ({each}) "
            f"| {mean(rows, 'bits_a_byte'):.3f} | {mean(rows, 'cpu_s'):.0f} |"
        )


def mean(rows: list[dict[str, float]], name: str) -> float:
    """Return the mean of a number over runs."""
    return statistics.mean(row[name] for row in rows)


def train(
    model: Any,
    tokenizer: Any,
    texts: dict[str, list[str]],
    given: argparse.Namespace,
    rate: float,
    seed: int,
) -> dict[str, float]:
    """Train once; return perplexity a token on validation and test documents, and what it took."""
    own = MambaParameters(block_size=given.block_size, overlap=given.overlap)
    arguments = {
        "max_steps": given.steps,
        "learning_rate": rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": given.steps // 10,
        "weight_decay": 0.1,
        "adam_beta2": 0.95,
        "per_device_train_batch_size": given.batch,
        "per_device_eval_batch_size": given.batch,
        "logging_steps": given.steps,
    }
    more: dict[str, Any] = {
        "parameters": own,
        "arguments": arguments,
        "seed": seed,
        "settings": TrainerSettings(device="cpu"),
    }
    trainer = MambaTrainer(model, tokenizer, texts["train"], eval_dataset=texts["validation"], **more)
    started = time.process_time()
    trainer.train()
    spent = time.process_time() - started
    validation = trainer.evaluate()["eval/perplexity"]
    held_out = MambaTrainer(model, tokenizer, [], eval_dataset=texts["test"], **more)
    loss = held_out.evaluate()["eval/loss"]
    tokens = sum(sum(row.weights) for row in held_out.eval_data() or [])
    letters = sum(len(text.encode()) for text in texts["test"])
    return {
        "validation": round(validation, 3),
        "test": round(math.exp(loss), 3),
        "bits_a_byte": round(loss * tokens / letters / math.log(2), 4),
        "tokens": given.steps * given.batch * given.block_size,
        "cpu_s": round(spent, 1),
    }


def speed(given: argparse.Namespace) -> None:
    """Print tokens a CPU second of a training step for each length."""
    tokenizer = train_byte_bpe(documents(given.held_out)["validation"], vocab_size=given.vocab_size)
    print("| tokens in a row | rows | mamba, tokens/s | llama, tokens/s | ratio |")
    print("| --: | --: | --: | --: | --: |")
    for length in given.lengths:
        rows = max(1, given.tokens // length)
        seconds: dict[str, list[float]] = {}
        steps = {}
        # plain attention holds all pairs of tokens: gigabytes in longer rows
        names = ("mamba", "llama sdpa", *(("llama eager",) if length <= _PLAIN else ()))
        for name in names:
            kind, _, attention = name.partition(" ")
            model = make(kind, tokenizer, given, 0, length)
            if attention:
                model.set_attn_implementation(attention)
            steps[name] = Step(model, rows, length)
        for _ in range(given.repeats + 1):
            for name, step in steps.items():
                started = time.process_time()
                step()
                seconds.setdefault(name, []).append(time.process_time() - started)
        # the first step touches its memory for the first time
        best = {name: rows * length / min(found[1:]) for name, found in seconds.items()}
        name = max(names[1:], key=lambda name: best[name])
        print(
            f"| {length:,} | {rows} | {best['mamba']:,.0f} | {best[name]:,.0f} ({name.split()[1]}) "
            f"| {best['mamba'] / best[name]:.2f} |",
            flush=True,
        )


class Step:
    """One optimizer step over the same random tokens."""

    def __init__(self, model: Any, rows: int, length: int) -> None:
        self.model = model.train()
        self.ids = torch.randint(2, 256, (rows, length), generator=torch.Generator().manual_seed(0))
        self.weights = torch.ones(rows, length)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def __call__(self) -> None:
        """Do it."""
        loss = weighted_token_loss(self.model, self.ids, self.weights)
        (loss / self.weights.sum()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=["perplexity", "speed"])
    parser.add_argument("--hidden-size", type=int, default=96)
    parser.add_argument("--mamba-layers", type=int, default=6)
    parser.add_argument("--llama-layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4, help="of the Llama")
    parser.add_argument("--head-dim", type=int, default=48, help="of the Mamba")
    parser.add_argument("--state-size", type=int, default=64)
    parser.add_argument("--chunk-size", type=int, default=32)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--add", nargs="*", default=[], help="files with lines of JSON from other processes")
    parser.add_argument("--held-out", type=int, default=60_000, help="letters of validation and of test")
    parser.add_argument("--learning-rates", type=float, nargs="*", default=[2e-3, 4e-3, 8e-3])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--block-size", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 2048, 8192])
    parser.add_argument("--tokens", type=int, default=8192, help="of a step, for speed")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    {"perplexity": perplexity, "speed": speed}[given.part](given)


if __name__ == "__main__":
    main()
