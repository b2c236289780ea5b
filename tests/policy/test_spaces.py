"""Observations and actions as numbers, against what Gymnasium itself makes of them."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from trainshed.errors import ConfigError
from trainshed.policy.spaces import Actions, describe_observations, flatten, observation_size

NESTED = spaces.Dict(
    {
        "place": spaces.Box(-1.0, 1.0, (2, 3), dtype=np.float64),
        "kind": spaces.Discrete(4, start=-1),
        "switches": spaces.MultiBinary(3),
        "pair": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 255, (2,), dtype=np.uint8))),
    }
)


@pytest.mark.parametrize("space", [NESTED, *NESTED.spaces.values()], ids=lambda space: type(space).__name__)
def test_observations_are_flat_as_gymnasium_has_them(space):
    space.seed(3)
    description = json.loads(json.dumps(describe_observations(space)))
    for _ in range(5):
        value = space.sample()
        found = flatten(description, value)
        assert found.dtype == np.float32
        assert found.shape == (observation_size(description),)
        np.testing.assert_array_equal(found, spaces.flatten(space, value).astype(np.float32))


def test_a_subclass_is_of_its_kind():
    class Mine(spaces.Box):
        pass

    assert describe_observations(Mine(0.0, 1.0, (2,)))["kind"] == "numbers"


def test_what_cannot_be_read_is_said():
    space = spaces.Dict({"a": spaces.Tuple((spaces.Text(3),))})
    with pytest.raises(ConfigError, match=r"kind Text cannot be read(.|\n)*observations\.a\[0\]"):
        describe_observations(space)
    with pytest.raises(ConfigError, match="kind MultiBinary cannot be acted in"):
        Actions.from_space(spaces.MultiBinary(2))


def test_choices_begin_where_the_environment_begins():
    actions = Actions.from_space(spaces.Discrete(3, start=5))
    assert [actions.to_environment(np.int64(choice)) for choice in range(3)] == [5, 6, 7]
    assert Actions.from_json(json.loads(json.dumps(actions.to_json()))) == actions


def test_numbers_are_stretched_to_their_bounds_and_cut_there():
    low, high = np.array([[-2.0, 0.0], [-np.inf, 1.0]]), np.array([[2.0, 10.0], [0.0, np.inf]])
    actions = Actions.from_space(spaces.Box(low, high, dtype=np.float64))
    assert Actions.from_json(json.loads(json.dumps(actions.to_json()))) == actions
    middle = actions.to_environment(np.array([0.0, 0.0, -0.5, 2.0], dtype=np.float32))
    np.testing.assert_array_equal(middle, [[0.0, 5.0], [-0.5, 2.0]])
    ends = actions.to_environment(np.array([1.0, -1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(ends, [[2.0, 0.0], [0.0, 1.0]])
    beyond = actions.to_environment(np.array([-7.0, 7.0, 7.0, -7.0]))
    np.testing.assert_array_equal(beyond, [[-2.0, 10.0], [0.0, 1.0]])
    assert middle.dtype == np.float64
    assert spaces.Box(low, high, dtype=np.float64).contains(beyond)
