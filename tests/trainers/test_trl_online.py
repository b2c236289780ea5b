"""Rewards on TRL's trainers: several with weights, and what they are told."""

import pytest

from rewarded_checks import make, right
from trainshed.errors import ConfigError
from trainshed.rewards.functions import WeightedRewards


def test_several_rewards_are_weighed_and_reported_apart():
    told = []

    def short(prompts, completions, **columns):
        told.append(sorted(columns))
        return [1.0] * len(completions)

    rewards = WeightedRewards({"right": right, "short": short}, {"right": 2.0, "short": 0.5})
    trainer = make("grpo", rewards=rewards, max_steps=1, save_strategy="no")
    (row,) = trainer.train().history
    assert row["rewards/short/mean"] == 1.0
    assert row["train/reward"] == pytest.approx(2 * row["rewards/right/mean"] + 0.5, abs=1e-6)
    assert told[0] == ["answer"]


def test_nothing_that_judges_is_an_error():
    with pytest.raises(ConfigError, match="nothing judges"):
        make("rloo", rewards=WeightedRewards({}))


def test_the_reference_is_the_start_of_a_model_that_was_never_saved():
    trainer = make("grpo", max_steps=2, beta=0.1, save_strategy="no", logging_steps=1)
    named = trainer.model.config._name_or_path
    kl = [row["train/kl"] for row in trainer.train().history]
    assert kl[0] == 0.0 < kl[1]
    assert trainer.model.config._name_or_path == named
