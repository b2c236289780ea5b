"""Language-model training: the loss by hand, packing without leaks, resuming after a kill, from a run."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainshed.config.schema import DataSection, ModelSection
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.errors import ConfigError, DataError
from trainshed.models.build import build_llama
from trainshed.models.causal_lm import LoraSettings, add_lora, load_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.models.tokenizers import train_byte_bpe
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.pretrain import PretrainTrainer, build_section, read_corpora, read_texts
from trainshed.trainers.token_loss import weighted_token_loss

TEXTS = [f"number {i} comes before number {i + 1} and after {i - 1}" for i in range(40)]
PAIRS = [{"prompt": f"after {i} comes", "completion": f" {i + 1}"} for i in range(20)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(TEXTS, vocab_size=300)


def llama(tokenizer, dropout=0.0, **shape):
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64, **shape}
    model = build_llama(tokenizer, max_length=64, seed=1, **shape)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    return model


def trainer(tokenizer, rows=TEXTS, model=None, parameters=None, arguments=None, **more):
    given = {
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2,
        "logging_steps": 1,
    }
    return PretrainTrainer(
        model or llama(tokenizer),
        tokenizer,
        rows,
        parameters=PretrainParameters(**{"block_size": 48, **(parameters or {})}),
        arguments={**given, **(arguments or {})},
        **{"settings": TrainerSettings(device="cpu"), **more},
    )


def by_hand(model, tokenizer, prompt, completion, weight):
    """Return the sums of weighted losses and of weights, token by token."""
    ids = [*tokenizer(prompt)["input_ids"], *tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
    start, total, mass = len(tokenizer(prompt)["input_ids"]), 0.0, 0.0
    for place in range(1, len(ids)):
        logits = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        scale = 1.0 if place >= start else weight
        total -= scale * logits.log_softmax(-1)[ids[place]].item()
        mass += scale
    return total, mass


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_loss_of_pairs_equals_a_token_by_token_one(tokenizer, weight):
    made = trainer(tokenizer, rows=PAIRS, parameters={"prompt_loss_weight": weight})
    expected = [by_hand(made.model, tokenizer, p["prompt"], p["completion"], weight) for p in PAIRS]
    batch = made.collate(made.train_data())
    assert made.loss_weight(batch) == pytest.approx(sum(mass for _, mass in expected))
    assert made.loss_sum(made.model, batch).item() == pytest.approx(sum(t for t, _ in expected), rel=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packing_changes_no_loss(tokenizer, attention):
    model = llama(tokenizer)
    model.set_attn_implementation(attention)
    sums = []
    for packing in (True, False):
        made = trainer(tokenizer, model=model, parameters={"packing": packing, "block_size": 64})
        batch = made.collate(made.train_data())
        assert ("position_ids" in batch) == packing
        sums.append((len(made.train_data()), made.loss_weight(batch), made.loss_sum(model, batch).item()))
    assert sums[0][0] < 0.7 * sums[1][0]
    assert sums[0][1] == sums[1][1]
    assert sums[0][2] == pytest.approx(sums[1][2], rel=1e-4)


def test_only_positions_that_count_reach_the_output_layer(tokenizer):
    model = llama(tokenizer)
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    weights = torch.tensor([[0, 0, 1, 0.5], [0, 0, 0, 1]])
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    loss = weighted_token_loss(model, ids, weights)
    assert seen == [(3, len(tokenizer))]
    logits = model(input_ids=ids).logits.log_softmax(-1)
    expected = -(logits[0, 1, 7] + 0.5 * logits[0, 2, 8] + logits[1, 2, 12])
    torch.testing.assert_close(loss, expected)


def test_long_texts_are_cut_without_losing_a_target(tokenizer):
    made = trainer(tokenizer, rows=[" ".join(TEXTS)], parameters={"block_size": 16})
    count = len(tokenizer(" ".join(TEXTS))["input_ids"])
    assert sum(sum(row.weights) for row in made.train_data()) == count
    assert max(map(len, made.train_data())) == 16


def test_it_learns_and_the_result_loads_anywhere(tokenizer, tmp_path):
    made = trainer(
        tokenizer, eval_dataset=TEXTS[::3], arguments={"num_train_epochs": 15, "eval_strategy": "epoch"}
    )
    before = made.evaluate()["eval/loss"]
    assert before == pytest.approx(math.log(len(tokenizer)), rel=0.1)
    result = made.train()
    assert made.evaluate()["eval/loss"] < 0.6 * before
    assert result.history[-1]["eval/loss"] == made.evaluate()["eval/loss"]
    (tmp_path / "other.txt").write_text("stays")
    made.save(tmp_path)
    loaded, words = load_causal_lm(str(tmp_path))
    assert weights_hash(loaded) == weights_hash(made.model)
    assert loaded.config.use_cache
    assert words("number 3")["input_ids"] == tokenizer("number 3")["input_ids"]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"other.txt", "model.safetensors", "tokenizer.json", "config.json"} <= names
    assert not any(name.endswith((".bin", ".pt")) or name.startswith(".") for name in names)


def test_adapters_learn_alone_and_resume(tokenizer, tmp_path):
    hashes = []
    for stop in (None, 7):
        model = add_lora(llama(tokenizer), LoraSettings(r=4, dropout=0.1), seed=2)
        base = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
        settings = TrainerSettings(directory=tmp_path / str(stop), resume=True, device="cpu")
        more = {"settings": settings, "model": model, "arguments": {"save_steps": 5}}
        if stop:
            broken = trainer(tokenizer, **more)
            broken.loss_sum = _failing(broken, 8)
            with pytest.raises(OSError, match="killed"):
                broken.train()
            more["model"] = add_lora(llama(tokenizer), LoraSettings(r=4, dropout=0.1), seed=2)
        made = trainer(tokenizer, **more)
        made.train()
        state = dict(made.model.named_parameters())
        assert all(torch.equal(state[name], value) for name, value in base.items())
        hashes.append(weights_hash(made.model))
    assert hashes[0] == hashes[1]


def _failing(made, call):
    inner, calls = made.loss_sum, []

    def loss_sum(model, batch):
        calls.append(1)
        if len(calls) == call:
            raise OSError("killed")
        return inner(model, batch)

    return loss_sum


def killable(directory, on_step=None):
    """Return a training with everything that must come back: dropout, accumulation, schedule, bfloat16."""
    tokenizer = train_byte_bpe(TEXTS, vocab_size=300)
    arguments = {"num_train_epochs": 4, "save_steps": 3, "gradient_accumulation_steps": 2, "bf16": "auto"}
    return trainer(
        tokenizer,
        model=llama(tokenizer, dropout=0.1),
        settings=TrainerSettings(directory=directory, resume=True, device="cpu", on_step=on_step),
        arguments={**arguments, "lr_scheduler_type": "cosine"},
    )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_pretrain import killable
killable(Path(sys.argv[2]), lambda step, total: step == 8 and os.kill(os.getpid(), signal.SIGKILL)).train()
"""


def test_killed_by_the_system_and_started_again(tmp_path, capsys):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "a")]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again, whole = killable(tmp_path / "a"), killable(tmp_path / "b")
    assert again.train() == whole.train()
    assert "going on from step 6" in capsys.readouterr().err
    assert weights_hash(again.model) == weights_hash(whole.model)


def test_rows_that_cannot_be_used(tokenizer):
    with pytest.raises(DataError, match="row 2"):
        trainer(tokenizer, rows=[{"text": "a"}, {"txt": "b"}])
    with pytest.raises(DataError, match=r"does not fit a row of 48[\s\S]*row 2"):
        trainer(tokenizer, rows=[PAIRS[0], {"prompt": "a", "completion": " ".join(TEXTS)}])
    with pytest.raises(ConfigError, match=r"block_size[\s\S]*at most 64"):
        trainer(tokenizer, parameters={"block_size": 65})
    with pytest.raises(DataError, match="empty"):
        trainer(tokenizer, rows=[]).train()


def test_long_prompts_lose_their_beginning(tokenizer, capsys):
    rows = [{"prompt": " ".join(TEXTS), "completion": " yes"}, PAIRS[0]]
    made = trainer(tokenizer, rows=rows)
    assert "the beginning of 1 prompts was cut" in capsys.readouterr().err
    assert tokenizer.decode(made.train_data()[0].ids).endswith("38 yes<eos>")


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_reading_splits_columns_and_limits(tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"body": text} for text in TEXTS] + PAIRS)
    write_rows(tmp_path / "validation.jsonl", [{"text": "held out"}])
    section = DataSection(dataset_name=str(tmp_path), columns={"text": "body"}, max_train_samples=3)
    assert read_texts(section, "train") == [{"text": text} for text in TEXTS[:3]]
    with pytest.raises(DataError, match=r"validation\.jsonl"):
        read_texts(section, "validation")
    one = DataSection(dataset_name=str(tmp_path / "train.jsonl"), columns={"text": "body"})
    assert read_texts(one, "train")[-1] == PAIRS[-1]
    assert read_texts(one, "validation") == []
    with pytest.raises(DataError, match="does not exist"):
        read_texts(DataSection(dataset_name=str(tmp_path / "none.jsonl")), "train")
    with pytest.raises(ConfigError, match="dataset_name"):
        read_texts(DataSection(), "train")


def test_mixtures_and_fractions(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"body": f"{text} {n}"} for n in range(10) for text in TEXTS[:2]])
    write_rows(tmp_path / "b.jsonl", [{"body": f"other {n}"} for n in range(60)])
    sources = [{"dataset_name": str(tmp_path / f"{name}.jsonl")} for name in "ab"]
    section = DataSection(mixture=sources, validation_fraction=0.2)
    train, held_out = read_corpora(section, "body", seed=3)
    assert len(held_out) == 16
    assert all(row.keys() == {"body"} for row in train)
    others = [row["body"].startswith("other") for row in train]
    assert 2 * sum(others) == len(others) > 20
    assert not {row["body"] for row in train} & {row["body"] for row in held_out}
    assert (train, held_out) == read_corpora(section, "body", seed=3)
    whole = DataSection(dataset_name=str(tmp_path / "b.jsonl"), columns={"text": "body"})
    assert read_corpora(whole) == (read_texts(whole, "train"), [])


def test_a_section_describes_the_model():
    rows = [{"text": text} for text in TEXTS]
    section = ModelSection(hidden_size=16, num_layers=1, num_heads=2, vocab_size=280)
    model, tokenizer = build_section(section, rows, block_size=1024, seed=0)
    assert len(tokenizer) == 280
    assert (model.config.hidden_size, model.config.intermediate_size) == (16, 42)
    assert model.config.max_position_embeddings == 1024
    assert model.config._attn_implementation == "eager"
    chosen = section.model_copy(update={"attn_implementation": "sdpa"})
    assert build_section(chosen, rows, block_size=64, seed=0)[0].config._attn_implementation == "sdpa"
    again, _ = build_section(section, rows, block_size=1024, seed=0)
    assert weights_hash(again) == weights_hash(model)


def test_from_a_run(tmp_path):
    from trainshed.config.resolved import RunConfig, TrainingSection
    from trainshed.config.schema import ExecutionSection
    from trainshed.plan.directory import RunDirectory
    from trainshed.plan.metrics import read_metrics
    from trainshed.stages.context import StageContext

    write_rows(tmp_path / "data" / "train.jsonl", [{"text": text} for text in TEXTS])
    write_rows(tmp_path / "data" / "validation.jsonl", PAIRS)
    arguments = {"max_steps": 4, "per_device_train_batch_size": 2, "bf16": "auto", "learning_rate": 1e-3}
    hashes = []
    for name in ("one", "two"):
        config = RunConfig(
            name="generator",
            stage="train",
            execution=ExecutionSection(seed=11, device="cpu", algorithm="pretrain"),
            model=ModelSection(hidden_size=16, num_layers=1, num_heads=2, vocab_size=280),
            data=DataSection(dataset_name=str(tmp_path / "data")),
            training=TrainingSection("pretrain", PretrainParameters(block_size=32), arguments),
        )
        directory = RunDirectory(tmp_path / name)
        made = PretrainTrainer.from_run(StageContext(directory, config))
        result = made.train()
        assert result.steps == 4
        assert made.evaluate()["eval/loss"] > 0
        made.save(directory.outputs)
        hashes.append(weights_hash(load_causal_lm(str(directory.outputs))[0]))
        assert read_metrics(directory.metrics_path)[-1]["train/loss"] > 0
        assert directory.has_checkpoint()
    assert hashes[0] == hashes[1]
