"""Each algorithm on TRL's trainers: it learns, resumes exactly, saves what loads, and stops at no number."""

import copy
import json

import pytest
import torch
from tiny_language import completions, make_model, make_tokenizer, successors, unpaired
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from trainshed.config.schema import ModelSection
from trainshed.errors import ConfigError, RunError
from trainshed.evaluation.preferences import preference_margins, preference_metrics
from trainshed.models.causal_lm import LoraSettings, add_lora, save_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.models.reward_models import load_reward_model
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.cpo import CPOTrainer
from trainshed.trainers.dpo import DPOTrainer
from trainshed.trainers.kto import KTOTrainer
from trainshed.trainers.orpo import ORPOTrainer
from trainshed.trainers.reward import RewardTrainer
from trainshed.trainers.sft import SFTTrainer

TRAIN, HELD_OUT = successors(256, seed=1), successors(64, seed=2)
ROWS = {"sft": completions, "kto": unpaired}
TRAINERS = {
    "sft": SFTTrainer,
    "reward": RewardTrainer,
    "dpo": DPOTrainer,
    "kto": KTOTrainer,
    "orpo": ORPOTrainer,
    "cpo": CPOTrainer,
}
SLOWER = {
    "reward": {"learning_rate": 1e-3, "max_steps": 240},
    "kto": {"learning_rate": 2e-3, "max_steps": 200, "beta": 0.5},
}


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def accuracy(name, trainer, reference):
    """Return how often the better of two held-out answers wins; for `sft`, how often it is the likeliest."""
    if name == "sft":
        return trainer.evaluate()["eval/mean_token_accuracy"]
    if name == "reward":
        return trainer.evaluate()["eval/accuracy"]
    margins = preference_margins(trainer.model, trainer.tokenizer, HELD_OUT, reference=reference)
    return preference_metrics(margins)["preference/accuracy"]


def model_for(name, tokenizer, tmp_path):
    if name != "reward":
        return make_model()
    save_causal_lm(make_model(), tokenizer, tmp_path / "start")
    return load_reward_model(ModelSection(model_name_or_path=str(tmp_path / "start")), seed=3)[0]


def make(name, tokenizer, tmp_path, *, model=None, train=TRAIN, settings=None, callbacks=(), **arguments):
    rows = ROWS.get(name, list)
    return TRAINERS[name](
        model_for(name, tokenizer, tmp_path) if model is None else model,
        tokenizer,
        rows(train),
        eval_dataset=rows(HELD_OUT),
        arguments={
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 32,
            "learning_rate": 5e-3,
            "max_length": 24,
            "max_steps": 80,
            "save_steps": 4,
            "bf16": False,
            **arguments,
        },
        seed=5,
        settings=settings or TrainerSettings(device="cpu"),
        callbacks=callbacks,
    )


@pytest.mark.parametrize("name", TRAINERS)
def test_it_learns_and_what_is_saved_loads(name, tokenizer, tmp_path):
    trainer = make(name, tokenizer, tmp_path, save_strategy="no", **SLOWER.get(name, {}))
    reference = copy.deepcopy(trainer.model)
    before, loss = accuracy(name, trainer, reference), trainer.evaluate()["eval/loss"]
    result = trainer.train()
    assert accuracy(name, trainer, reference) >= 0.9 > before + 0.2
    assert trainer.evaluate()["eval/loss"] < loss
    assert result.steps >= 80
    assert result.history[-1]["train/loss"] < result.history[0]["train/loss"]
    trainer.save(tmp_path / "saved")
    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    loaded = kind.from_pretrained(tmp_path / "saved").eval()
    ids = tokenizer("after n3 is n4", return_tensors="pt")
    assert torch.equal(loaded(**ids).logits, trainer.model(**ids).logits)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_killed_training_ends_with_the_same_weights(name, tokenizer, tmp_path):
    def run(place, *callbacks):
        settings = TrainerSettings(directory=tmp_path / place, resume=True, device="cpu")
        trainer = make(
            name,
            tokenizer,
            tmp_path,
            train=TRAIN[:72],
            settings=settings,
            callbacks=callbacks,
            max_steps=11,
            logging_steps=3,
            gradient_accumulation_steps=2,
            per_device_train_batch_size=8,
        )
        return trainer, trainer.train()

    whole, undisturbed = run("whole")
    with pytest.raises(OSError, match="killed"):
        run("killed", KillAt(7))
    again, resumed = run("killed")
    assert (
        weights_hash(again.model)
        == weights_hash(whole.model)
        != weights_hash(model_for(name, tokenizer, tmp_path))
    )
    assert resumed.loss == undisturbed.loss
    assert resumed.history[-1] == undisturbed.history[-1]
    names = {file.name for file in (tmp_path / "killed" / "checkpoint-11").iterdir()}
    assert "model.safetensors" in names
    assert not any(name.endswith((".bin", ".pkl")) for name in names)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_adapters_learn_beside_frozen_weights(name, tokenizer, tmp_path):
    base = make_model()
    frozen = weights_hash(base)
    model = add_lora(base, LoraSettings(r=8, dropout=0.0), seed=1)
    settings = TrainerSettings(directory=tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(OSError, match="killed"):
        make(
            name, tokenizer, tmp_path, model=model, settings=settings, callbacks=[KillAt(6)], max_steps=8
        ).train()
    model = add_lora(make_model(), LoraSettings(r=8, dropout=0.0), seed=1)
    trainer = make(name, tokenizer, tmp_path, model=model, settings=settings, max_steps=8)
    trainer.train()
    whole = make(
        name,
        tokenizer,
        tmp_path,
        model=add_lora(make_model(), LoraSettings(r=8, dropout=0.0), seed=1),
        max_steps=8,
    )
    whole.train()
    assert weights_hash(trainer.model) == weights_hash(whole.model)
    assert list(trainer.model.peft_config) == ["default"]
    trainer.save(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir() if "adapter" in file.name) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert weights_hash(trainer.model.unload()) == frozen


def test_a_loss_that_is_no_number_names_step_and_rows(tokenizer, tmp_path):
    class Spoil(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 5:
                with torch.no_grad():
                    model.lm_head.weight.fill_(float("nan"))

    settings = TrainerSettings(directory=tmp_path / "run", device="cpu")
    trainer = make("dpo", tokenizer, tmp_path, settings=settings, callbacks=[Spoil()], train=TRAIN[:96])
    with pytest.raises(RunError, match=r"step 6, on training examples \d+(, \d+){15}") as caught:
        trainer.train()
    assert "checkpoint-4" in str(caught.value)


def test_the_model_keeps_its_forward(tokenizer, tmp_path):
    trainer = make("dpo", tokenizer, tmp_path, max_steps=2, save_strategy="no")
    trainer.train()
    assert "forward" not in vars(trainer.model)


def test_long_prompts_are_cut_to_their_end(tokenizer, tmp_path, capsys):
    from trainshed.trainers.trl_data import cut_prompts

    rows = cut_prompts([{"prompt": "n1 n2 . after n3 is"}, {"prompt": "after n3 is"}], tokenizer, 3)
    assert [row["prompt"] for row in rows] == ["after n3 is"] * 2


def test_nothing_to_evaluate_on(tokenizer):
    trainer = SFTTrainer(make_model(), tokenizer, completions(TRAIN))
    with pytest.raises(ConfigError, match="no data to evaluate on"):
        trainer.evaluate()


def test_metrics_of_the_training_are_written(tokenizer, tmp_path):
    trainer = make(
        "dpo", tokenizer, tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2, logging_steps=2
    )
    history = trainer.train().history
    assert any("eval/rewards_accuracies" in row for row in history)
    assert json.loads(json.dumps(history)) == history
