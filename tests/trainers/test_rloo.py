"""REINFORCE with a leave-one-out baseline: it learns a rule from rewards alone, and resumes exactly."""

import pytest

from rewarded_checks import check_learning, check_resuming


@pytest.mark.slow
def test_it_learns_from_rewards():
    check_learning("rloo", beta=0.02)


def test_a_training_killed_within_a_rollout_ends_with_the_same_weights(tmp_path):
    check_resuming("rloo", tmp_path, beta=0.02)
