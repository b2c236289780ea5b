"""Reward models on a language of a few words: it learns, and resumes exactly."""

from trl_checks import check_learning, check_resuming


def test_it_learns_and_what_is_saved_loads(tmp_path):
    check_learning("reward", tmp_path)


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    check_resuming("reward", tmp_path)
