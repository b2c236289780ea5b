"""A teacher that knows a language of a few words, and what every algorithm that has one must do."""

import copy
import functools

import pytest
import torch
from transformers import AutoModelForCausalLM

from tiny_language import completions, make_model, make_tokenizer, successors
from trainshed.models.encoders import weights_hash
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.distillation import DistillationTrainer
from trainshed.trainers.gkd import GKDTrainer
from trainshed.trainers.sft import SFTTrainer
from trl_checks import KillAt

TRAINERS = {"gkd": GKDTrainer, "distillation": DistillationTrainer}
#: what each calls the length of what it samples
LENGTH = {"gkd": "max_new_tokens", "distillation": "max_completion_length"}


def rows_for(name, count, seed):
    rows = completions(successors(count, seed=seed))
    return rows if name == "gkd" else [{"prompt": row["prompt"]} for row in rows]


@functools.cache
def _taught():
    """Return a model that has learnt the language, in a second."""
    trainer = SFTTrainer(
        make_model(),
        make_tokenizer(),
        completions(successors(256, seed=1)),
        arguments={
            "per_device_train_batch_size": 16,
            "learning_rate": 5e-3,
            "max_length": 24,
            "max_steps": 80,
            "bf16": False,
            "save_strategy": "no",
        },
        seed=5,
        settings=TrainerSettings(device="cpu"),
    )
    trainer.train()
    return trainer.model


def make_teacher():
    return copy.deepcopy(_taught())


def make(
    name, *, model=None, teacher=None, train=None, settings=None, callbacks=(), parameters=None, **arguments
):
    kind = TRAINERS[name]
    return kind(
        make_model(seed=3) if model is None else model,
        make_tokenizer(),
        rows_for(name, 256, 6) if train is None else train,
        eval_dataset=rows_for(name, 64, 2),
        teacher=make_teacher() if teacher is None else teacher,
        teacher_tokenizer=make_tokenizer(),
        parameters=parameters,
        arguments={
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 24,
            "learning_rate": 5e-3,
            LENGTH[name]: 2,
            "max_steps": 240,
            "save_steps": 4,
            "bf16": False,
            **arguments,
        },
        seed=5,
        settings=settings or TrainerSettings(device="cpu"),
        callbacks=callbacks,
    )


def distance(student, teacher):
    """Return KL(teacher, student) of the answer's first token in nats, and how often they favour the same."""
    tokenizer = make_tokenizer()
    ids = tokenizer([row["prompt"] for row in rows_for("gkd", 64, 2)], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        log_p, log_q = (model(ids).logits[:, -1].log_softmax(-1) for model in (teacher, student))
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    return kl, (log_p.argmax(-1) == log_q.argmax(-1)).float().mean().item()


def check_learning(name, tmp_path, **arguments):
    """The student comes to say what the teacher says, which nothing changes, and what is saved loads."""
    trainer = make(name, save_strategy="no", **arguments)
    before = weights_hash(trainer.teacher)
    far, loss = distance(trainer.model, trainer.teacher), trainer.evaluate()["eval/loss"]
    result = trainer.train()
    near = distance(trainer.model, trainer.teacher)
    assert near[0] < 0.2 * far[0]
    assert near[1] >= 0.9 > far[1] + 0.2
    assert trainer.evaluate()["eval/loss"] < 0.5 * loss
    assert result.history[-1]["train/loss"] < result.history[0]["train/loss"]
    assert weights_hash(trainer.teacher) == before
    assert not any(parameter.requires_grad for parameter in trainer.teacher.parameters())
    assert not trainer.teacher.training
    assert not {"forward", "_original_forward"} & set(vars(trainer.teacher))
    trainer.save(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    ids = make_tokenizer()("after n3 is n4", return_tensors="pt")
    assert torch.equal(loaded(**ids).logits, trainer.model(**ids).logits)


def check_resuming(name, tmp_path, **arguments):
    """Killed in the first epoch and the second, it ends with weights and numbers of an undisturbed one."""

    def run(place, *callbacks):
        trainer = make(
            name,
            train=rows_for(name, 64, 6),
            settings=TrainerSettings(directory=tmp_path / place, resume=True, device="cpu"),
            callbacks=callbacks,
            **{
                "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 2,
                "max_steps": 11,  # four steps an epoch
                "save_steps": 1,
                "logging_steps": 3,
                **arguments,
            },
        )
        return trainer, trainer.train()

    whole, undisturbed = run("whole")
    for step in (3, 7):
        with pytest.raises(OSError, match="killed"):
            run("killed", KillAt(step))
    again, resumed = run("killed")
    assert weights_hash(again.model) == weights_hash(whole.model) != weights_hash(make_model(seed=3))
    assert resumed.loss == undisturbed.loss
    assert untimed(resumed.history[-1]) == untimed(undisturbed.history[-1])


def untimed(row):
    return {name: value for name, value in row.items() if name != "train/step_time"}


def check_evaluating_changes_nothing(name, **arguments):
    """A training with evaluations in between ends with the weights of one without."""
    ends = []
    for strategy in ("no", "steps"):
        trainer = make(
            name, max_steps=4, save_strategy="no", eval_strategy=strategy, eval_steps=1, **arguments
        )
        trainer.train()
        ends.append(weights_hash(trainer.model))
    assert ends[0] == ends[1]


def check_accumulation(name, **arguments):
    """One step on two micro-batches of four is one on eight, with answers of unequal length among them."""
    ends = []
    for size, parts in ((8, 1), (4, 2)):
        trainer = make(
            name,
            train=uneven(name),
            max_steps=1,
            save_strategy="no",
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=parts,
            **arguments,
        )
        trainer.train()
        ends.append(trainer.model.state_dict())
    for one, other in zip(ends[0].values(), ends[1].values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    start = make_model(seed=3).state_dict()
    assert not all(torch.allclose(start[key], ends[0][key], atol=1e-4) for key in start)


def uneven(name):
    rows = rows_for(name, 8, 6)
    if name == "gkd":
        for place, row in enumerate(rows):
            row["completion"] += " . after n1" * (place % 3)
    return rows
