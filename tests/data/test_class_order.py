"""No batch of unpaired answers has one class only, and no prompt is given its own answer for KL."""

import copy
import itertools
import random
import time

import datasets
from hypothesis import given
from hypothesis import strategies as st

from trainshed.data.class_order import interleave, one_class_batches, shared_slots
from trainshed.data.conversion import convert
from trainshed.data.formats import RowFormat


def key(row):
    return row["prompt"]


def pairs(count):
    return [
        {"prompt": f"p{n}", "completion": f"{label} {n}", "label": label}
        for n in range(count)
        for label in (True, False)
    ]


def contents(rows):
    return sorted((row["prompt"], row["completion"], row["label"]) for row in rows)


def test_the_order_of_trl_is_the_trap_that_this_guards_against():
    """All chosen, then all rejected: the batches of one class that `interleave` must not leave."""
    rows = sorted(pairs(16), key=lambda row: not row["label"])
    assert len(one_class_batches(rows, 8)) == 4
    assert one_class_batches(interleave(rows, key=key, seed=0, batch_size=8), 8) == []


@given(
    count=st.integers(1, 60), batch_size=st.integers(2, 17), seed=st.integers(0, 5), order=st.integers(0, 5)
)
def test_pairs(count, batch_size, seed, order):
    rows = pairs(count)
    random.Random(order).shuffle(rows)
    made = interleave(rows, key=key, seed=seed, batch_size=batch_size)
    assert contents(made) == contents(rows)
    assert made == interleave(rows, key=key, seed=seed, batch_size=batch_size)
    # any two rows in a row have both classes, wherever batches begin
    assert all(a["label"] != b["label"] for a, b in itertools.pairwise(made))
    if count > batch_size:
        for start in range(0, len(made), batch_size):
            prompts = [row["prompt"] for row in made[start : start + batch_size]]
            assert len(set(prompts)) == len(prompts)
        alone = {len(made) - 1} if len(made) % batch_size == 1 else set()
        assert set(shared_slots(made, key=key, batch_size=batch_size)) == alone


@given(
    good=st.integers(1, 80),
    bad=st.integers(1, 80),
    batch_size=st.integers(2, 17),
    prompts=st.integers(1, 200),
    seed=st.integers(0, 3),
)
def test_unequal_classes(good, bad, batch_size, prompts, seed):
    rows = [
        {"prompt": f"p{n * 7 % prompts}", "completion": str(n), "label": n < good} for n in range(good + bad)
    ]
    made = interleave(rows, key=key, seed=seed, batch_size=batch_size)
    assert contents(made) == contents(rows)
    if min(good, bad) >= -(-len(rows) // batch_size):
        assert one_class_batches(made, batch_size) == []


def test_repeated_prompts_are_kept_from_their_own_answers():
    rows = [
        {"prompt": f"p{n // 4}", "completion": f"{label} {n}", "label": label}
        for n in range(200)
        for label in (True, False)
    ]
    made = interleave(rows, key=key, seed=1, batch_size=6)
    assert one_class_batches(made, 6) == []
    assert shared_slots(made, key=key, batch_size=6) == []


def test_one_prompt_for_all_rows_takes_no_time():
    rows = [{"prompt": "", "completion": str(n), "label": n % 2 == 0} for n in range(20_000)]
    started = time.process_time()
    made = interleave(rows, key=key, seed=0)
    assert time.process_time() - started < 5
    assert one_class_batches(made, 8) == []


def test_the_slots_of_trl():
    rows = [{"prompt": name} for name in "abcab"]
    # batches of 3: a is given c's answer, b a's, c b's; then a and b each other's
    assert shared_slots(rows, key=key, batch_size=3) == []
    assert shared_slots(rows, key=key, batch_size=4) == [0, 4]


def test_one_class_alone_stays_as_it_can_be():
    rows = [{"prompt": str(n), "completion": "c", "label": True} for n in range(5)]
    assert contents(interleave(rows, key=key, seed=0)) == contents(rows)
    assert one_class_batches(rows, 2) == [0, 1]


def test_the_seed_decides():
    rows = pairs(50)
    assert interleave(rows, key=key, seed=0) != interleave(rows, key=key, seed=1)


def kto_losses(dataset, model, tokenizer, directory):
    """Train a few steps with trl, and return each step's loss and whether it saw a bad answer."""
    from trl import KTOConfig, KTOTrainer

    arguments = KTOConfig(
        output_dir=str(directory),
        max_steps=5,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = KTOTrainer(
        model=copy.deepcopy(model),
        ref_model=copy.deepcopy(model),
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    return [row["loss"] for row in steps], ["rewards/rejected" in row for row in steps]


def test_trl_learns_from_this_order_and_not_from_its_own(random_llama, tokenizer, tmp_path):
    fmt = RowFormat("preference")
    rows = [{"prompt": f"the cat {n}", "chosen": " red", "rejected": " blue"} for n in range(40)]
    losses, saw_bad = kto_losses(datasets.Dataset.from_list(rows), random_llama, tokenizer, tmp_path)
    assert not any(saw_bad)
    assert all(abs(loss - 0.5) < 0.01 for loss in losses)
    made, _ = convert([("", row) for row in rows], fmt, "unpaired", seed=0, batch_size=8)
    ours = datasets.Dataset.from_list([row for _, row in made])
    losses, saw_bad = kto_losses(ours, random_llama, tokenizer, tmp_path)
    assert all(saw_bad)
    assert losses[-1] < 0.48
