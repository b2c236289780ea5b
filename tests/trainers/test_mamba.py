"""Training a Mamba-2: documents in overlapping rows, decay, resuming, packing refused, the example run."""

import itertools
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import Mamba2ForCausalLM, TrainerCallback

from trainshed.config.load import load_config
from trainshed.config.sweep import expand
from trainshed.config.trainers.mamba import Mamba2Shape, MambaParameters
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.errors import ConfigError
from trainshed.models.causal_lm import LoraSettings, add_lora, load_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.models.mamba import build_mamba2
from trainshed.models.tokenizers import train_byte_bpe
from trainshed.plan.directory import RunDirectory
from trainshed.registry import STAGES
from trainshed.stages.context import StageContext
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.mamba import MambaTrainer
from trainshed.trainers.packing import text_rows
from trainshed.trainers.pretrain import PretrainTrainer
from trainshed.trainers.token_loss import weighted_token_loss

TEXTS = [f"number {i} comes before number {i + 1} and after {i - 1}" for i in range(40)]
PAIRS = [{"prompt": f"after {i} comes", "completion": f" {i + 1}"} for i in range(10)]
SHAPE = Mamba2Shape(hidden_size=32, num_layers=2, head_dim=16, state_size=8, chunk_size=8)
EXAMPLE = Path(__file__).parents[2] / "examples" / "mamba.yaml"


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(TEXTS, vocab_size=300)


def trainer(tokenizer, rows=TEXTS, *, model=None, own=None, **more):
    arguments = {
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "logging_steps": 2,
        **more.pop("arguments", {}),
    }
    return MambaTrainer(
        model or build_mamba2(tokenizer, SHAPE, seed=1),
        tokenizer,
        rows,
        parameters=MambaParameters(**{"block_size": 24, "overlap": 6, **(own or {})}),
        arguments=arguments,
        **{"settings": TrainerSettings(device="cpu"), "seed": 3, **more},
    )


@given(st.lists(st.integers(2, 99), max_size=90), st.integers(2, 24), st.data())
def test_every_token_counts_once_and_rows_overlap(ids, size, data):
    overlap = data.draw(st.integers(1, size - 1))
    rows = text_rows(ids, size, overlap)
    assert [t for row in rows for t, w in zip(row.ids, row.weights, strict=True) if w] == ids[1:]
    assert all(len(row) <= size and row.weights[0] == 0 for row in rows)
    for before, after in itertools.pairwise(rows):
        assert len(before) == size
        assert after.ids[:overlap] == before.ids[-overlap:]
        assert after.weights == (0.0,) * overlap + (1.0,) * (len(after) - overlap)


def test_a_document_is_learnt_as_its_rows_say(tokenizer):
    made = trainer(tokenizer, rows=[" ".join(TEXTS), "short"])
    ids = [*tokenizer(" ".join(TEXTS))["input_ids"], tokenizer.eos_token_id]
    rows = made.train_data()
    assert len(rows) > 10
    assert sum(sum(row.weights) for row in rows) == len(ids) - 1 + len(tokenizer("short")["input_ids"])
    # by hand: each token given what its row holds before it
    expected, model, start = 0.0, made.model, 0
    with torch.no_grad():
        for place in range(1, len(ids)):
            if place - start >= 24:
                start += 24 - 6
            logits = model(torch.tensor([ids[start:place]])).logits[0, -1]
            expected -= logits.log_softmax(-1)[ids[place]].item()
        short = [*tokenizer("short")["input_ids"], tokenizer.eos_token_id]
        for place in range(1, len(short)):
            logits = model(torch.tensor([short[:place]])).logits[0, -1]
            expected -= logits.log_softmax(-1)[short[place]].item()
        assert made.loss_sum(model, made.collate(rows)).item() == pytest.approx(expected, rel=1e-4)


def test_it_learns_and_the_library_alone_loads_it(tokenizer, tmp_path):
    made = trainer(
        tokenizer, rows=[*TEXTS, *PAIRS], eval_dataset=TEXTS[::3], arguments={"num_train_epochs": 8}
    )
    before = made.evaluate()
    assert before["eval/perplexity"] == pytest.approx(len(tokenizer), rel=0.3)
    made.train()
    after = made.evaluate()
    assert after["eval/loss"] < 0.6 * before["eval/loss"]
    made.save(tmp_path)
    loaded = Mamba2ForCausalLM.from_pretrained(tmp_path).eval()
    assert weights_hash(loaded) == weights_hash(made.model)
    ids = torch.tensor([tokenizer("number 3 comes before")["input_ids"]])
    assert torch.equal(loaded(ids).logits, made.model(ids).logits)
    assert load_causal_lm(str(tmp_path))[1]("number 3")["input_ids"] == tokenizer("number 3")["input_ids"]


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapters"])
def test_killed_and_started_again_it_ends_with_the_same_weights(tokenizer, tmp_path, lora):
    def run(place, *callbacks):
        model = build_mamba2(tokenizer, SHAPE, seed=1)
        if lora:
            model = add_lora(model, LoraSettings(r=2, dropout=0.1, target_modules=("in_proj",)), seed=2)
        made = trainer(
            tokenizer,
            model=model,
            settings=TrainerSettings(directory=tmp_path / place, resume=True, device="cpu"),
            callbacks=callbacks,
            arguments={
                "save_steps": 3,
                "gradient_accumulation_steps": 2,
                "max_steps": 11,
                "weight_decay": 0.1,
            },
        )
        first = weights_hash(made.model)
        return made, made.train(), first

    whole, undisturbed, first = run("whole")
    with pytest.raises(OSError, match="killed"):
        run("killed", KillAt(7))
    again, resumed, _ = run("killed")
    assert weights_hash(again.model) == weights_hash(whole.model) != first
    assert resumed == undisturbed


def test_decay_pulls_at_matrices_alone(tokenizer):
    """After one step the gradient has been the same; what differs is what decays."""
    ends = []
    for decay in (0.0, 0.5):
        made = trainer(
            tokenizer, arguments={"max_steps": 1, "weight_decay": decay, "lr_scheduler_type": "constant"}
        )
        made.train()
        ends.append(dict(made.model.named_parameters()))
    pulled = {name for name, value in ends[0].items() if not torch.equal(value, ends[1][name])}
    matrices = {name for name, value in ends[0].items() if value.dim() > 1}
    assert pulled == matrices
    assert {name.rpartition(".")[2] for name in set(ends[0]) - pulled} == {
        "A_log",
        "D",
        "dt_bias",
        "bias",
        "weight",
    }


def test_the_library_alone_would_let_the_state_decay(tokenizer, tmp_path):
    """Why `_MambaLoop` is there; when this fails, it may go."""
    made = trainer(tokenizer)
    loop = made.make_loop(made.make_arguments({"save_strategy": "no"}, tmp_path), [])
    names = transformers.Trainer.get_decay_parameter_names(loop, made.model)
    assert "backbone.layers.0.mixer.A_log" in names
    assert "backbone.layers.0.mixer.A_log" not in loop.get_decay_parameter_names(made.model)


def test_bfloat16_computes_the_same_loss_and_direction(tokenizer):
    made, found = trainer(tokenizer, rows=[" ".join(TEXTS)]), []
    batch = made.collate(made.train_data())
    for enabled in (False, True):
        made.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = made.loss_sum(made.model, batch)
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in made.model.parameters()])))
    assert found[1][0] == pytest.approx(found[0][0], rel=2e-3)
    assert found[1][0] != found[0][0]
    assert torch.nn.functional.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.995


def test_packed_texts_would_leak_and_are_refused(tokenizer):
    model = build_mamba2(tokenizer, SHAPE, seed=1)
    one, two = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 10, 11, 12]])
    positions = torch.arange(4).repeat(1, 2)
    packed = model(torch.cat([one, two], dim=1), position_ids=positions).logits[:, 4:]
    assert not torch.allclose(packed, model(two).logits, atol=1e-5)
    with pytest.raises(ConfigError, match=r"state of a mamba2[\s\S]*training\.packing"):
        PretrainTrainer(model, tokenizer, TEXTS, parameters=PretrainParameters(block_size=24))
    row, weights = torch.cat([one, two], dim=1), torch.ones(1, 8)
    with pytest.raises(ConfigError, match="leak"):
        weighted_token_loss(model, row, weights, position_ids=positions)
    apart = PretrainTrainer(model, tokenizer, TEXTS, parameters=PretrainParameters(packing=False))
    assert len(apart.train_data()) == len(TEXTS)
    with pytest.raises(ValueError, match="leak"):
        MambaParameters(packing=True)


def test_the_example_trains_saves_and_resumes_to_the_same_weights(tmp_path, monkeypatch):
    overrides = [
        "training.max_steps=4",
        "training.save_steps=2",
        "training.per_device_train_batch_size=2",
        "data.max_train_samples=20",
        "data.max_eval_samples=4",
        "model.num_layers=2",
        "model.vocab_size=300",
        "execution.device=cpu",
    ]
    (run,) = expand(load_config(EXAMPLE, overrides, environ={}))

    def go(place):
        directory = RunDirectory(tmp_path / place)
        directory.outputs.mkdir(parents=True, exist_ok=True)
        STAGES.get("train")(StageContext(directory, run.config))
        return directory.outputs

    with monkeypatch.context() as patch:
        inner, calls = MambaTrainer.loss_sum, []

        def dies(self, model, batch):
            calls.append(1)
            if len(calls) == 4:
                raise OSError("killed")
            return inner(self, model, batch)

        patch.setattr(MambaTrainer, "loss_sum", dies)
        with pytest.raises(OSError, match="killed"):
            go("killed")
    again, whole = (Mamba2ForCausalLM.from_pretrained(go(place)) for place in ("killed", "whole"))
    assert len(calls) == 4
    assert weights_hash(again) == weights_hash(whole)
    assert whole.config.num_hidden_layers == 2
