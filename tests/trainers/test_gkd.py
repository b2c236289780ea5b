"""Generalized knowledge distillation: learning from a teacher, on data and on its own completions."""

import copy

import pytest
import torch
from pydantic import ValidationError

from taught_checks import (
    check_accumulation,
    check_evaluating_changes_nothing,
    check_learning,
    check_resuming,
    make,
    make_teacher,
    rows_for,
)
from tiny_language import make_model, make_tokenizer
from trainshed.config.trainers.gkd import GKDParameters
from trainshed.errors import DataError
from trainshed.models.causal_lm import LoraSettings, add_lora
from trainshed.models.encoders import weights_hash
from trainshed.trainers.gkd import tokenized_pairs
from trainshed.trainers.trl_gkd import collator

CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}is {% endif %}"


def test_it_learns_and_what_is_saved_loads(tmp_path):
    check_learning("gkd", tmp_path)


@pytest.mark.parametrize("own", [{"lmbda": 1.0, "beta": 1.0}, {"lmbda": 0.0, "seq_kd": True, "beta": 0.0}])
def test_it_learns_from_completions_of_the_student_or_the_teacher(own, tmp_path):
    check_learning("gkd", tmp_path, **own)


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    check_resuming("gkd", tmp_path)


def test_evaluating_changes_nothing():
    check_evaluating_changes_nothing("gkd", lmbda=1.0)


def test_the_loss_is_the_mean_over_an_optimizer_step():
    check_accumulation("gkd", lmbda=0.0)


def test_the_loss_counts_the_tokens_that_were_sampled_and_not_those_of_the_data():
    """TRL divides by the data's tokens: longer answers there, which are not looked at, change nothing."""
    ends = []
    for more in ("", " . after n1 is n2 . after n1 is n2"):
        rows = rows_for("gkd", 8, 6)
        for row in rows:
            row["completion"] += more
        trainer = make(
            "gkd",
            train=rows,
            lmbda=1.0,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            save_strategy="no",
            per_device_train_batch_size=8,
        )
        trainer.train()
        ends.append(weights_hash(trainer.model))
    assert ends[0] == ends[1]


def test_the_divergence_is_that_of_the_paper():
    """At beta 0 the loss before the first step is KL(teacher, student) a token, computed here by hand."""
    rows = rows_for("gkd", 16, 6)
    trainer = make("gkd", train=rows, lmbda=0.0, beta=0.0, max_steps=1, save_strategy="no", logging_steps=1)
    student, teacher = copy.deepcopy(trainer.model), make_teacher()
    (first,) = trainer.train().history
    batch = collator(0)(tokenized_pairs(rows, make_tokenizer(), "rows"))
    mask = batch["labels"][:, 1:] != -100
    assert mask.sum() == 2 * 16  # the answer and the end of the text
    with torch.no_grad():
        log_p, log_q = (
            model(batch["input_ids"]).logits[:, :-1][mask].log_softmax(-1) for model in (teacher, student)
        )
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    assert first["train/loss"] == pytest.approx(kl, rel=1e-5)
    assert first["train/teacher_kl"] == pytest.approx(kl, rel=1e-5)


def test_both_models_take_the_temperature_of_the_loss():
    losses = []
    for heat in (1.0, 50.0):
        own = GKDParameters(loss_temperature=heat)
        trainer = make("gkd", parameters=own, lmbda=0.0, max_steps=1, save_strategy="no", logging_steps=1)
        losses.append(trainer.train().history[0]["train/loss"])
    assert losses[1] < 0.01 * losses[0]  # at such a temperature both are nearly uniform


def test_evaluation_is_over_tokens_however_it_is_batched():
    found = []
    for size in (5, 64):
        trainer = make("gkd", per_device_eval_batch_size=size)
        found.append(trainer.evaluate())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0]["eval/teacher_kl"] > 0 <= found[0]["eval/teacher_agreement"] <= 1


def test_it_samples_without_dropout():
    model = make_model(seed=3)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9  # which TRL does not reach
    seen = []
    trainer = make("gkd", model=model, lmbda=1.0, max_steps=2, save_strategy="no")
    generate = model.generate

    def note(*args, **kwargs):
        seen.append(model.training)
        return generate(*args, **kwargs)

    model.generate = note
    trainer.train()
    assert seen == [False, False]


def test_completions_end_at_the_tokenizers_end_though_the_model_names_none(tmp_path):
    model = make_model(seed=3)
    model.generation_config.eos_token_id = None
    trainer = make("gkd", model=model, lmbda=1.0, max_new_tokens=8)
    loop = trainer.make_loop(trainer.make_arguments(trainer.arguments, tmp_path), [])
    assert loop.sampling.stop_ids == (1,)


def test_adapters_learn_beside_frozen_weights_and_keep_their_dropout():
    model = add_lora(make_model(seed=3), LoraSettings(r=8, dropout=0.1), seed=1)
    frozen = weights_hash(make_model(seed=3))
    trainer = make("gkd", model=model, save_strategy="no", learning_rate=1e-2, max_steps=40)
    before = trainer.evaluate()["eval/teacher_kl"]
    trainer.train()
    assert trainer.evaluate()["eval/teacher_kl"] < 0.95 * before
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.1}
    assert weights_hash(model.unload()) == frozen


def test_conversations_are_taken_and_the_last_answer_is_what_is_learnt():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT
    talk = [
        {"role": "user", "content": "after n3"},
        {"role": "assistant", "content": "n4"},
        {"role": "user", "content": "after n5"},
        {"role": "assistant", "content": "is n6"},
    ]
    (row,) = tokenized_pairs([{"messages": talk}], tokenizer, "rows")
    assert tokenizer.decode(row["input_ids"][: row["prompt_length"]]) == "after n3 n4 after n5 is"
    assert tokenizer.decode(row["input_ids"][row["prompt_length"] :]) == "n6"


def test_long_prompts_lose_their_beginning_and_rows_without_a_prompt_are_left_out(capsys):
    tokenizer = make_tokenizer()
    rows = [
        {"prompt": "n1 n2 . after n3 is", "completion": " n4"},
        {"prompt": "after n3 is", "completion": " n4 n5 n6 n7"},
    ]
    (row,) = tokenized_pairs(rows, tokenizer, "the data", max_length=4)
    assert tokenizer.decode(row["input_ids"]) == "n3 is n4 </s>"
    assert row["prompt_length"] == 2
    assert "1 rows are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="no row keeps a token of its prompt"):
        tokenized_pairs(rows[1:], tokenizer, "the data", max_length=4)


@pytest.mark.parametrize(
    ("key", "value"), [("lmbda", 1.5), ("beta", -0.1), ("temperature", 0.0), ("max_new_tokens", 0)]
)
def test_what_trl_refuses_when_all_is_loaded_is_refused_by_the_configuration(key, value):
    with pytest.raises(ValidationError, match=key):
        GKDParameters.split({"teacher_name_or_path": "teacher", key: value})
