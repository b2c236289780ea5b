"""What all algorithms on TRL's trainers share: adapters, guards, prompts, metrics."""

import json

import pytest
import torch
from transformers import TrainerCallback

from tiny_language import completions, make_model, make_tokenizer
from trainshed.data.cutting import cut_prompts
from trainshed.errors import ConfigError, RunError
from trainshed.models.causal_lm import LoraSettings, add_lora
from trainshed.models.encoders import weights_hash
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.sft import SFTTrainer
from trl_checks import TRAIN, KillAt, make


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


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
