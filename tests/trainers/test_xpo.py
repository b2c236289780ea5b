"""XPO: it learns, its pairs are who they should be, and it resumes to the last bit."""

import pytest
import torch

from online_checks import maker
from trainshed.config.trainers.xpo import XPOParameters
from trainshed.models.encoders import weights_hash
from trainshed.policy.preferences import xpo_loss
from trainshed.trainers.xpo import XPOTrainer
from trl_checks import KillAt


@pytest.fixture
def make(choosing_llama, choosing_tokenizer, choosing_rows):
    return maker(XPOTrainer, XPOParameters, choosing_llama, choosing_tokenizer, choosing_rows)


@pytest.mark.slow
def test_it_learns_what_is_right_on_prompts_it_has_not_seen(make):
    arguments = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 120}
    own = {"rollout_batch_size": 64, "missing_eos_penalty": 0.5}
    trainer = make(own, arguments={**arguments, "logging_steps": 10, "learning_rate": 2e-3})
    before = trainer.evaluate()
    history = trainer.train().history
    after = trainer.evaluate()
    assert before["eval/reward_exact_match"] < 0.5
    assert after["eval/reward_exact_match"] >= 0.8
    assert after["eval/kl"] < 5.0
    assert history[-1]["xpo/win_rate"] > 0.65


def test_the_loss_is_that_of_the_pairs(make):
    trainer = make({"alpha": 0.1, "beta": 0.3})
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(1.2)
    batch = trainer.step_batches(1)[0]
    assert batch["input_ids"].shape[0] == 2 * len(batch["wins"]) == 16
    found = trainer.loss_sum(trainer.module, batch)
    total = 0.0
    width = batch["mask"].shape[1]
    for pair, wins in enumerate(batch["wins"]):
        ratios, sums = [], []
        for row in (2 * pair, 2 * pair + 1):
            ids, attention = batch["input_ids"][row : row + 1], batch["attention_mask"][row : row + 1]
            inside = batch["mask"][row]
            own = trainer.module(ids, attention, width)[0][0][inside].sum()
            ref = trainer.reference_logits(ids, attention, width)[0].log_softmax(-1)
            ref = ref.gather(-1, ids[0, -width:, None])[:, 0][inside].sum()
            ratios.append(own - ref)
            sums.append(own)
        chosen, rejected = ratios if wins else ratios[::-1]
        total += xpo_loss(chosen[None], rejected[None], sums[1][None], beta=0.3, alpha=0.1).item()
    assert found.item() == pytest.approx(total, rel=1e-4)
    assert trainer.loss_weight(batch) == 8


def test_the_preferred_one_has_the_greater_score(make):
    trainer = make()
    trainer.step_batches(1)
    made = trainer._rollout
    tokens = made["input_ids"][:, :, -made["mask"].shape[2] :]
    right = []
    for row in range(16):
        first = int(made["input_ids"][row, 0][made["attention_mask"][row, 0].bool()][0])
        right.append([int(tokens[row, who, 0]) == first for who in (0, 1)])
    decided = [(own, other, bool(won)) for (own, other), won in zip(right, made["wins"], strict=True)]
    assert any(own != other for own, other, _ in decided)
    assert all(won is own for own, other, won in decided if own != other)


def test_killed_and_resumed_ends_the_same(make, tmp_path):
    whole = make(path=tmp_path / "whole")
    expected = whole.train()
    with pytest.raises(OSError, match="killed"):
        make(path=tmp_path, callbacks=[KillAt(3)]).train()
    again = make(path=tmp_path)
    assert again.train() == expected
    assert weights_hash(again.module) == weights_hash(whole.module)
