"""What every algorithm on TRL's trainers must do, checked on a language of a few words."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from tiny_language import completions, make_model, make_tokenizer, successors, unpaired
from trainshed.config.schema import ModelSection
from trainshed.evaluation.preferences import preference_margins, preference_metrics
from trainshed.models.causal_lm import save_causal_lm
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


def check_learning(name, tmp_path):
    """It learns what it can be asked about held-out rows, and what it saved gives the same logits."""
    tokenizer = make_tokenizer()
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


def check_resuming(name, tmp_path):
    """Killed and started again, it ends with the weights and numbers of an undisturbed training."""
    tokenizer = make_tokenizer()

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
