"""BCO: it learns which answers are wanted, keeps its running shift, and resumes to the last bit."""

import copy
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from trainshed.config.trainers.bco import BCOParameters
from trainshed.data.judged import as_judged, read_judged
from trainshed.errors import ConfigError, DataError
from trainshed.models.encoders import weights_hash
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.bco import BCOTrainer, completion_ids

SHORT = {
    "per_device_train_batch_size": 6,
    "max_steps": 7,
    "learning_rate": 1e-3,
    "logging_steps": 2,
    "save_steps": 2,
}


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


def pairs(rows):
    """The right choice, and another one of the three."""
    return [
        {"prompt": row["prompt"], "chosen": f" {row['answer']}", "rejected": f" {row['prompt'].split()[1]}"}
        for row in rows
    ]


def unpaired(rows):
    """One judged completion of each prompt, every other one desired."""
    found = []
    for number, row in enumerate(pairs(rows)):
        kind = "chosen" if number % 2 else "rejected"
        found.append({"prompt": row["prompt"], "completion": row[kind], "label": kind == "chosen"})
    return found


@pytest.fixture
def make(choosing_llama, choosing_tokenizer, choosing_rows):
    def made(rows=None, *, path=None, arguments=None, own=None, **more):
        return BCOTrainer(
            copy.deepcopy(choosing_llama),
            choosing_tokenizer,
            unpaired(choosing_rows[0]) if rows is None else rows,
            eval_dataset=pairs(choosing_rows[1]),
            parameters=BCOParameters(**(own or {})),
            arguments={**SHORT, **(arguments or {})},
            seed=3,
            settings=TrainerSettings(
                directory=path and path / "checkpoints", resume=path is not None, device="cpu"
            ),
            **more,
        )

    return made


@pytest.mark.parametrize("form", [pairs, unpaired])
def test_it_learns_what_is_wanted_on_prompts_it_has_not_seen(make, choosing_rows, form):
    arguments = {"per_device_train_batch_size": 32, "max_steps": 120, "learning_rate": 3e-3}
    trainer = make(form(choosing_rows[0]), arguments=arguments, own={"beta": 0.5})
    with torch.no_grad():
        noise = trainer.evaluate()
    assert noise["eval/preference_accuracy"] == 0.0  # the reference itself: no reward at all
    trainer.train()
    found = trainer.evaluate()
    assert found["eval/preference_accuracy"] >= 0.9
    assert found["eval/accuracy"] >= 0.85
    assert found["eval/margin"] > 0.5


def test_the_first_loss_is_that_of_a_coin(make):
    history = make(arguments={"logging_steps": 1}).train().history
    assert history[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[0]["bco/delta"] == 0


def test_the_shift_is_the_mean_of_both_kinds(make):
    trainer = make(own={"delta_decay": 0.5})
    trainer._note(torch.tensor([1.0, 3.0, -1.0]), torch.tensor([True, True, False]))
    assert trainer.delta == 0
    trainer.step_batches(1)
    assert trainer.delta == pytest.approx(0.5 * (2.0 - 1.0))
    trainer._note(torch.tensor([4.0]), torch.tensor([True]))
    trainer.step_batches(1)
    assert trainer.delta == pytest.approx(0.5 * (3.0 - 1.0))


@pytest.mark.parametrize("step", [1, 3, 6])
def test_killed_and_resumed_ends_the_same(make, tmp_path, step):
    whole = make(path=tmp_path / "whole")
    expected = whole.train()
    with pytest.raises(OSError, match="killed"):
        make(path=tmp_path, callbacks=[KillAt(step)]).train()
    torch.rand(3)
    again = make(path=tmp_path)
    assert again.train() == expected
    assert weights_hash(again.model) == weights_hash(whole.model)
    assert again.delta == whole.delta


def test_how_a_step_is_cut_does_not_count(make):
    found = []
    for size, pieces in ((12, 1), (4, 3)):
        more = {"per_device_train_batch_size": size, "gradient_accumulation_steps": pieces, "max_steps": 3}
        trainer = make(arguments={**more, "train_sampling_strategy": "sequential", "optim": "sgd"})
        trainer.train()
        found.append(trainer.model.lm_head.weight.detach())
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_weights_of_the_kinds(make):
    trainer = make(own={"desired_weight": 3.0, "undesired_weight": 0.5})
    batch = trainer.collate(trainer.train_data()[:4])
    assert trainer.loss_weight(batch) == 7.0


def test_saved_and_loaded(make, tmp_path):
    trainer = make()
    trainer.train()
    trainer.save(tmp_path)
    ids = torch.tensor([[3, 4, 5, 2]])
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, trainer.model(ids).logits)


def test_tokens_of_prompt_and_completion(choosing_tokenizer):
    (row, _) = as_judged([{"prompt": "k1 :", "chosen": " k1", "rejected": " k2"}])
    assert completion_ids(choosing_tokenizer, row) == ([4, 2], [4, 1])
    tokenizer = copy.deepcopy(choosing_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}<eos>{% else %}: {% endif %}"
        "{% endfor %}"
    )
    talk = [{"role": "user", "content": "k1"}]
    done = [{"role": "assistant", "content": "k3"}]
    rows = as_judged(
        [
            {"prompt": talk, "completion": done, "label": True},
            {"prompt": talk, "completion": done, "label": False},
        ]
    )
    assert completion_ids(tokenizer, rows[0]) == ([4, 2], [6, 1])
    tokenizer.chat_template = "{% if messages | length > 1 %}k5 {% endif %}{{ messages[0].content }} :"
    with pytest.raises(DataError, match="does not begin a whole conversation"):
        completion_ids(tokenizer, rows[0])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"prompt": "k1 :", "completion": "k1", "label": True}], "all 1 completions are desired"),
        ([{"prompt": "k1 :", "chosen": "k1", "rejected": "k1"}], "are the same"),
        ([{"prompt": "k1 :", "text": "k1"}], "it has prompt, text"),
        ([{"prompt": "k1 :", "chosen": "k1 " * 20, "rejected": "k2"}], "does not fit 16"),
    ],
)
def test_what_cannot_be_is_said(make, rows, match):
    with pytest.raises((ConfigError, DataError), match=match):
        make(rows)


def test_the_built_in_questions_have_wrong_answers(monkeypatch):
    from trainshed.config.schema import DataSection
    from trainshed.data.examples import RagExample

    examples = [
        RagExample("a?", "1", kind="x"),
        RagExample("b?", "2", kind="x"),
        RagExample("c?", "3", kind="y", answers=("3", "1")),
    ]
    monkeypatch.setattr("trainshed.data.judged.builtin_split", lambda split: examples)
    found = read_judged(DataSection(dataset_name="builtin"), "train")
    told = [(row.prompt[10:12], row.completion, row.label) for row in found]
    # of another kind, and for c not the first answer, which is right there too
    assert told == [
        ("a?", " 1", True),
        ("a?", " 3", False),
        ("b?", " 2", True),
        ("b?", " 3", False),
        ("c?", " 3", True),
        ("c?", " 2", False),
    ]
