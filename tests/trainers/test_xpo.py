"""XPO: it learns, its pairs are who they should be, and it resumes to the last bit."""

import copy

import pytest
import torch
from transformers import TrainerCallback

from trainshed.config.trainers.xpo import XPOParameters
from trainshed.models.encoders import weights_hash
from trainshed.policy.preferences import xpo_loss
from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import ExactMatch
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.xpo import XPOTrainer

SHORT = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 5,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_steps": 2,
}


class KillAt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise OSError("killed")


@pytest.fixture
def make(choosing_llama, choosing_tokenizer, choosing_rows):
    def made(own=None, *, path=None, arguments=None, **more):
        return XPOTrainer(
            copy.deepcopy(choosing_llama),
            choosing_tokenizer,
            choosing_rows[0],
            WeightedRewards({"exact_match": ExactMatch()}),
            eval_prompts=choosing_rows[1],
            parameters=XPOParameters(**{"rollout_batch_size": 16, "max_new_tokens": 2, **(own or {})}),
            arguments={**SHORT, **(arguments or {})},
            seed=3,
            settings=TrainerSettings(
                directory=path and path / "checkpoints", resume=path is not None, device="cpu"
            ),
            **more,
        )

    return made


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
        make(path=tmp_path, callbacks=[KillAt()]).train()
    again = make(path=tmp_path)
    assert again.train() == expected
    assert weights_hash(again.module) == weights_hash(whole.module)
