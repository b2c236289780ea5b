"""What every algorithm of TRL that is judged by rewards must do, checked on a language of a few words."""

import pytest

from tiny_language import make_model, make_tokenizer, successors
from trainshed.models.encoders import weights_hash
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.grpo import GRPOTrainer
from trainshed.trainers.rloo import RLOOTrainer
from trl_checks import KillAt

TRAINERS = {"grpo": GRPOTrainer, "rloo": RLOOTrainer}


def right(prompts, completions, answer, **columns):
    return [
        float(completion.strip() == wanted.strip())
        for completion, wanted in zip(completions, answer, strict=True)
    ]


def prompts(count, seed):
    return [{"prompt": row["prompt"], "answer": row["chosen"]} for row in successors(count, seed)]


def make(name, *, rewards=None, settings=None, callbacks=(), **arguments):
    return TRAINERS[name](
        make_model(),
        make_tokenizer(),
        prompts(256, seed=1),
        eval_dataset=prompts(64, seed=2),
        rewards=rewards or {"right": right},
        arguments={
            "per_device_train_batch_size": 64,
            "per_device_eval_batch_size": 64,
            "num_generations": 16,
            "max_completion_length": 1,
            "learning_rate": 2e-3,
            "lr_scheduler_type": "constant",
            "bf16": False,
            **arguments,
        },
        seed=3,
        settings=settings or TrainerSettings(device="cpu"),
        callbacks=callbacks,
    )


def check_learning(name, **arguments):
    """From chance to most answers right on held-out prompts, with the distance from the start reported."""
    trainer = make(name, max_steps=250, save_strategy="no", **arguments)
    before = trainer.evaluate()["eval/reward"]
    result = trainer.train()
    after = trainer.evaluate()
    assert after["eval/reward"] >= 0.9 > 0.2 > before
    assert 0 < after["eval/kl"] < 5
    assert result.history[0]["train/kl"] == 0.0
    assert "forward" not in vars(trainer.model)


def check_resuming(name, tmp_path, **arguments):
    """Killed between two steps on one rollout, it ends with the weights and numbers of an undisturbed one."""

    def run(place, *callbacks):
        settings = TrainerSettings(directory=tmp_path / place, resume=True, device="cpu")
        trainer = make(
            name,
            settings=settings,
            callbacks=callbacks,
            per_device_train_batch_size=16,
            num_generations=4,
            steps_per_generation=2,
            num_iterations=2,
            max_steps=10,
            save_steps=1,
            logging_steps=3,
            **arguments,
        )
        return trainer, trainer.train()

    whole, undisturbed = run("whole")
    for step in (3, 6):  # of four on one rollout
        with pytest.raises(OSError, match="killed"):
            run("killed", KillAt(step))
    again, resumed = run("killed")
    assert weights_hash(again.model) == weights_hash(whole.model) != weights_hash(make_model())
    assert resumed.loss == undisturbed.loss
    timed = "train/step_time"
    assert {k: v for k, v in resumed.history[-1].items() if k != timed} == {
        k: v for k, v in undisturbed.history[-1].items() if k != timed
    }
