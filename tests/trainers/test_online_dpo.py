"""Online DPO: it learns a rule from rewards on pairs of its own completions, and resumes exactly."""

import copy

import pytest
import torch
from pydantic import ValidationError
from transformers import TrainerCallback

from rewarded_checks import prompts, right
from tiny_language import make_model, make_tokenizer
from trainshed.config.fields import canonical_algorithm
from trainshed.config.trainers.online_dpo import OnlineDPOParameters
from trainshed.errors import ConfigError, DataError
from trainshed.models.causal_lm import LoraSettings, add_lora
from trainshed.models.encoders import weights_hash
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.online_dpo import OnlineDPOTrainer, batch_of
from trl_checks import KillAt


def length(prompts, completions, **columns):
    """Longer is better, and no two of different length are tied."""
    return [float(len(completion)) for completion in completions]


def make(*, model=None, train=None, rewards=None, settings=None, callbacks=(), parameters=None, **arguments):
    return OnlineDPOTrainer(
        make_model() if model is None else model,
        make_tokenizer(),
        prompts(256, seed=1) if train is None else train,
        eval_dataset=prompts(64, seed=2),
        rewards=rewards or {"right": right},
        parameters=parameters,
        arguments={
            "per_device_train_batch_size": 64,
            "per_device_eval_batch_size": 24,
            "max_new_tokens": 1,
            "max_length": 32,
            "temperature": 1.0,
            "learning_rate": 2e-3,
            "lr_scheduler_type": "constant",
            "bf16": False,
            **arguments,
        },
        seed=3,
        settings=settings or TrainerSettings(device="cpu"),
        callbacks=callbacks,
    )


class Weights(TrainerCallback):
    """Keeps the gradients of the first optimizer step."""

    def __init__(self):
        self.gradients = None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.slow
def test_it_learns_from_rewards():
    trainer = make(max_steps=250, save_strategy="no", beta=[0.1])
    before = trainer.evaluate()
    result = trainer.train()
    after = trainer.evaluate()
    assert after["eval/reward_right"] >= 0.8 > 0.2 > before["eval/reward_right"]
    assert before["eval/kl"] == pytest.approx(0.0, abs=1e-6)
    assert after["eval/kl"] > 0.5
    assert result.history[0]["online_dpo/tied"] > 0.5  # most pairs are both wrong at first
    assert result.history[-1]["online_dpo/score"] > 0.7
    assert "forward" not in vars(trainer.model)


def test_it_learns_from_a_reward_that_tells_all_apart():
    trainer = make(rewards={"long": length}, max_new_tokens=4, max_steps=40, save_strategy="no")
    before = trainer.evaluate()["eval/reward_long"]
    trainer.train()
    assert trainer.evaluate()["eval/reward_long"] > before + 1.0


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    def run(place, *callbacks):
        trainer = make(
            train=prompts(64, seed=1),
            rewards={"long": length},
            max_new_tokens=3,
            settings=TrainerSettings(directory=tmp_path / place, resume=True, device="cpu"),
            callbacks=callbacks,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            max_steps=10,  # four steps an epoch
            save_steps=1,
            logging_steps=3,
        )
        return trainer, trainer.train()

    whole, undisturbed = run("whole")
    for step in (3, 7):
        with pytest.raises(OSError, match="killed"):
            run("killed", KillAt(step))
    again, resumed = run("killed")
    assert weights_hash(again.model) == weights_hash(whole.model) != weights_hash(make_model())
    assert resumed.loss == undisturbed.loss
    assert resumed.history[-1] == undisturbed.history[-1]


def test_evaluating_changes_nothing():
    ends = []
    for strategy in ("no", "steps"):
        trainer = make(
            rewards={"long": length},
            max_new_tokens=3,
            max_steps=3,
            save_strategy="no",
            eval_strategy=strategy,
            eval_steps=1,
        )
        history = trainer.train().history
        assert any("eval/score" in row for row in history) is (strategy == "steps")
        ends.append(weights_hash(trainer.model))
    assert ends[0] == ends[1]


def test_pairs_with_equal_rewards_teach_nothing_unless_asked():
    def equal(prompts, completions, **columns):
        return [0.5] * len(completions)

    moved = {}
    for ties in ("skip", "first"):
        trainer = make(
            rewards={"equal": equal},
            parameters=OnlineDPOParameters(ties=ties),
            max_steps=2,
            max_new_tokens=3,
            save_strategy="no",
            logging_steps=1,
        )
        row = trainer.train().history[0]
        assert row["online_dpo/tied"] == 1.0
        moved[ties] = weights_hash(trainer.model) != weights_hash(make_model())
    assert moved == {"skip": False, "first": True}


def test_the_gradient_is_the_mean_over_the_step_however_it_is_divided():
    """TRL adds the gradients of micro-batches up: with four, it would be four times as long."""
    norms = {}
    for parts in (1, 4):
        kept = Weights()
        trainer = make(
            rewards={"long": length},
            max_new_tokens=4,
            max_steps=1,
            save_strategy="no",
            per_device_train_batch_size=256 // parts,
            gradient_accumulation_steps=parts,
            max_grad_norm=0.0,
            callbacks=[kept],
        )
        trainer.train()
        norms[parts] = torch.cat([gradient.flatten() for gradient in kept.gradients]).norm().item()
    assert norms[4] == pytest.approx(norms[1], rel=0.5)  # of other samples, so not quite the same


def test_the_loss_is_that_of_dpo_before_anything_is_learnt():
    """Policy and reference are the same, so every pair that is told apart has the loss log 2."""
    trainer = make(
        rewards={"long": length}, max_new_tokens=4, max_steps=1, save_strategy="no", logging_steps=1
    )
    (row,) = trainer.train().history
    assert row["train/loss"] == pytest.approx((1 - row["online_dpo/tied"]) * 0.693147, rel=1e-5)
    assert row["online_dpo/kl"] == pytest.approx(0.0, abs=1e-6)
    ipo = make(
        rewards={"long": length},
        max_new_tokens=4,
        max_steps=1,
        save_strategy="no",
        logging_steps=1,
        loss_type="ipo",
        beta=[0.5],
    )
    (row,) = ipo.train().history
    assert row["train/loss"] == pytest.approx(
        1 - row["online_dpo/tied"], rel=1e-5
    )  # (0 - 1 / (2 * 0.5)) ** 2


def test_a_beta_for_each_epoch():
    seen = []

    class Note(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(trainer_loop[0].beta)

    trainer = make(
        train=prompts(64, seed=1), beta=[0.5, 0.1], max_steps=3, save_strategy="no", callbacks=[Note()]
    )
    trainer_loop, made = [], trainer.make_loop

    def keep(*given):
        trainer_loop.append(made(*given))
        return trainer_loop[0]

    trainer.make_loop = keep
    trainer.train()
    assert seen[-1] == 0.1


def test_the_token_that_begins_a_text_is_before_a_plain_prompt(tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 1)]
    )
    trainer = make(max_steps=1, save_strategy="no")
    trainer.tokenizer = tokenizer
    loop = trainer.make_loop(trainer.make_arguments(trainer.arguments, tmp_path), [])
    ids, mask, *_ = loop._generate(trainer.model, ["after n3 is", "n1 n2 after n3 is"])
    assert ids.tolist()[0] == [0, 0, 1, 2, 8, 3]
    assert mask.tolist()[0] == [0, 0, 1, 1, 1, 1]
    assert ids.tolist()[:2] == ids.tolist()[2:]


def test_adapters_are_kept_near_what_they_were():
    """A policy that comes with adapters is its own reference, not the model below them."""
    model = add_lora(make_model(), LoraSettings(r=4, dropout=0.1), seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    reference = copy.deepcopy(model)
    trainer = make(model=model, rewards={"long": length}, max_new_tokens=3, max_steps=3, save_strategy="no")
    assert trainer.evaluate()["eval/kl"] == pytest.approx(0.0, abs=1e-6)
    trainer.train()
    assert weights_hash(trainer.reference_model) == weights_hash(reference) != weights_hash(model)
    assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} == {0.1}


def test_rows_are_columns_whatever_they_are_called():
    assert batch_of([{"prompt": "a", "my_labels": "x"}, {"prompt": "b", "my_labels": "y"}]) == {
        "prompt": ["a", "b"],
        "my_labels": ["x", "y"],
    }


def test_what_does_not_fit_is_refused_before_the_training():
    with pytest.raises(ConfigError, match="leave no room for a prompt in 32"):
        make(max_new_tokens=32)
    with pytest.raises(DataError, match="the prompt has 40 tokens, and 31 leave room"):
        make(train=[{"prompt": "n1 " * 40, "answer": "n2"}])
    with pytest.raises(ValidationError, match="beta"):
        OnlineDPOParameters.split({"rewards": ["exact_match"], "beta": [-1.0]})


def test_the_name_of_the_other_system_means_the_same():
    assert canonical_algorithm("dpo_online") == "online_dpo"
