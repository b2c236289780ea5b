"""Stepping several environments by hand, and putting them back where they were."""

import functools

import numpy as np
import pytest

from tiny_environments import Broken, Corridor, Remembering, Signs
from trainshed.errors import CheckpointError, ConfigError, MissingExtraError, RunError
from trainshed.policy.environments import Environments, Episode, make_environment, play

STAY = np.zeros((1, 2), dtype=np.float32)


def seeds(index, number):
    return 100 * index + number


def test_what_follows_the_last_action_is_the_end_and_not_the_next_beginning():
    environments = Environments(lambda: Corridor(end=3), 1, seeds)
    environments.begin()
    steps = []
    for _ in range(4):
        before = environments.observations.copy()
        steps.append((before[0, 0], environments.step(STAY)))
    assert [before for before, _ in steps] == [0.0, 1.0, 2.0, 0.0]
    assert [step.following[0, 0] for _, step in steps] == [1.0, 2.0, 3.0, 1.0]
    assert [step.rewards[0] for _, step in steps] == [1.0, 2.0, 3.0, 1.0]
    assert [bool(step.terminated[0]) for _, step in steps] == [False, False, True, False]
    assert not any(step.truncated[0] for _, step in steps)
    assert [step.ended for _, step in steps] == [(), (), (Episode(6.0, 3),), ()]


def test_a_limit_of_time_cuts_and_does_not_end():
    environments = Environments(lambda: make_environment("CartPole-v1", {"max_episode_steps": 2}), 1, seeds)
    environments.begin()
    first, second = (environments.step(np.array([1])) for _ in range(2))
    assert not first.truncated[0]
    assert second.truncated[0]
    assert not second.terminated[0]
    assert second.ended == (Episode(2.0, 2),)
    environments.close()


def test_actions_reach_the_environment_as_it_takes_them():
    made = []

    def make():
        made.append(Corridor())
        return made[-1]

    environments = Environments(make, 2, seeds)
    environments.begin()
    environments.step(np.array([[1.0, 2.0], [-1.0, -2.0]], dtype=np.float32))
    np.testing.assert_array_equal(made[0].taken[0], [3.0, 2.0])
    np.testing.assert_array_equal(made[1].taken[0], [-1.0, 0.0])


def test_every_episode_begins_with_a_seed_of_its_own():
    environments = Environments(lambda: make_environment("CartPole-v1"), 2, seeds)
    environments.begin()
    first = environments.observations.copy()
    while environments.state()[0]["episodes"] != [1, 1]:
        environments.step(np.array([0, 0]))
    assert not np.array_equal(first[0], first[1])
    alone = make_environment("CartPole-v1")
    np.testing.assert_array_equal(alone.reset(seed=100)[0], first[1])
    again = Environments(lambda: make_environment("CartPole-v1"), 2, seeds)
    again.begin()
    np.testing.assert_array_equal(again.observations, first)


@pytest.mark.parametrize("steps", [0, 1, 30, 77])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_they_go_on_as_if_nothing_had_happened(name, steps):
    def made():
        return Environments(functools.partial(make_environment, name), 3, seeds)

    chance = np.random.default_rng(0)
    numbers = chance.normal(size=(150, 3, 1)).astype(np.float32)
    actions = numbers if name == "Pendulum-v1" else (numbers[..., 0] > 0).astype(np.int64)
    whole = made()
    whole.begin()
    for action in actions[:steps]:
        whole.step(action)
    state, arrays = whole.state()
    other = made()
    other.restore(state, arrays)
    for action in actions[steps:]:
        expected, found = whole.step(action), other.step(action)
        np.testing.assert_array_equal(found.following, expected.following)
        np.testing.assert_array_equal(found.rewards, expected.rewards)
        assert found.ended == expected.ended
    np.testing.assert_array_equal(other.observations, whole.observations)


def test_an_environment_that_remembers_is_found_out():
    environments = Environments(Remembering, 1, seeds)
    environments.begin()
    for _ in range(4):
        environments.step(STAY)
    state, arrays = environments.state()
    with pytest.raises(CheckpointError, match="not where it was"):
        Environments(Remembering, 1, seeds).restore(state, arrays)


def test_an_episode_that_ends_earlier_when_it_is_played_again_is_found_out():
    environments = Environments(lambda: Corridor(end=9), 1, seeds)
    environments.begin()
    for _ in range(4):
        environments.step(STAY)
    state, arrays = environments.state()
    with pytest.raises(CheckpointError, match="not where it was"):
        Environments(lambda: Corridor(end=2), 1, seeds).restore(state, arrays)


def test_what_is_no_number_stops():
    environments = Environments(Broken, 1, seeds)
    environments.begin()
    for _ in range(4):
        environments.step(STAY)
    with pytest.raises(RunError, match="not a finite number"):
        environments.step(STAY)


def test_whole_episodes_are_played_in_order():
    found = play(lambda: Corridor(end=4), lambda rows: np.zeros((len(rows), 2)), range(5), at_once=2)
    assert found == [Episode(10.0, 4)] * 5
    by_seed = [play(Signs, lambda rows: rows.argmax(1) % 2, [seed])[0].total for seed in range(7)]
    assert len(set(by_seed)) > 1
    together = play(Signs, lambda rows: rows.argmax(1) % 2, range(7), at_once=3)
    assert [episode.total for episode in together] == by_seed


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("CartPole-v9", {}, "no environment 'CartPole-v9'(.|\n)*did you mean 'CartPole-v1'"),
        ("Nothing-v0", {}, "no environment 'Nothing-v0'"),
        ("nowhere:Thing-v0", {}, "no environment 'nowhere:Thing-v0'"),
        ("nowhere:Thing", {}, "cannot be imported(.|\n)*PYTHONPATH"),
        ("tiny_environments:Nothing", {}, "cannot be imported"),
        ("tiny_environments:not_an_environment", {}, "gives a object, not a gymnasium.Env"),
        ("tiny_environments:spaces", {}, "neither a class nor a function"),
        ("tiny_environments:Corridor", {"ends": 3}, "cannot be made with(.|\n)*env_kwargs"),
        ("CartPole-v1", {"gravity": 3}, "cannot be made with(.|\n)*env_kwargs"),
    ],
)
def test_what_is_not_there_is_said(name, options, match):
    with pytest.raises(ConfigError, match=match):
        make_environment(name, options)


def test_an_environment_of_ones_own():
    environment = make_environment("tiny_environments:Corridor", {"end": 3})
    assert isinstance(environment, Corridor)
    assert environment.end == 3


def test_without_the_extra_the_error_names_it(monkeypatch):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "gymnasium" else there(name, *a)
    )
    with pytest.raises(MissingExtraError, match=r"trainshed\[rl\]"):
        make_environment("CartPole-v1")
