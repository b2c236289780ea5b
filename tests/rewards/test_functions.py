"""Several rewards as one: weights, names, what functions may return, where they come from."""

import math
import sys

import pytest

from trainshed.config.rewards import RewardEntry, RewardOptions
from trainshed.errors import ConfigError, RunError
from trainshed.registry import REWARD_PARAMETERS, REWARDS, register_reward
from trainshed.rewards.functions import WeightedRewards, build_rewards


def one(prompts, completions, **columns):
    return [1.0] * len(prompts)


def entries(*given):
    return [RewardEntry.model_validate({"name": e} if isinstance(e, str) else e) for e in given]


def test_the_weighted_sum_and_each_apart():
    lengths = {"longer": lambda prompts, completions, **columns: [len(text) for text in completions]}
    rewards = WeightedRewards({"one": one, **lengths}, {"longer": 0.5})
    judged = rewards(["p", "p"], ["ab", "abcd"])
    assert judged.totals == [2.0, 3.0]
    assert judged.values == {"one": [1.0, 1.0], "longer": [2.0, 4.0]}
    assert judged.means() == {"reward/one": 1.0, "reward/longer": 3.0}


def test_none_leaves_a_completion_out():
    half = WeightedRewards({"one": one, "half": lambda prompts, **rest: [None, 3.0]})
    judged = half(["p", "p"], ["a", "b"])
    assert judged.totals == [1.0, 4.0]
    assert math.isnan(judged.values["half"][0])
    assert judged.means()["reward/half"] == 3.0
    with pytest.raises(RunError, match="no reward applies"):
        WeightedRewards({"none": lambda prompts, **rest: [None]})(["p"], ["a"])


@pytest.mark.parametrize(
    ("given", "match"),
    [([1.0, 2.0], "2 values for 1 completions"), ([math.inf], "gave inf"), (3.0, "gave 3.0"), (["x"], None)],
)
def test_what_is_no_reward(given, match):
    with pytest.raises((RunError, ValueError), match=match):
        WeightedRewards({"bad": lambda prompts, **rest: given})(["p"], ["a"])


def test_columns_reach_the_functions():
    seen = {}

    def see(prompts, completions, **columns):
        seen.update(columns)
        return [0.0]

    WeightedRewards({"see": see})(["p"], ["a"], answer=("x",))
    assert seen == {"answer": ["x"]}


def test_built_from_entries(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "def short(prompts, completions, *, most=3, **columns):\n"
        "    return [float(len(text) <= most) for text in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = build_rewards(
        entries(
            {"name": "my_rewards:short", "most": 2, "weight": 2.0},
            "my_rewards:short",
            {"name": "exact_match", "match": "exact"},
        )
    )
    judged = rewards(["p"], ["abc"], answer=["abc"])
    assert judged.values == {"short": [0.0], "short_2": [1.0], "exact_match": [1.0]}
    assert judged.totals == [2.0]
    for name, match in (
        ("no_such:f", "cannot be imported"),
        ("my_rewards:g", "cannot be imported"),
        ("sys:path", "is no function"),
    ):
        with pytest.raises(ConfigError, match=match):
            build_rewards(entries(name))
    sys.modules.pop("my_rewards")


def test_a_reward_may_be_registered(monkeypatch):
    monkeypatch.setattr(REWARDS, "_objects", dict(REWARDS._objects))
    monkeypatch.setattr(REWARD_PARAMETERS, "_objects", dict(REWARD_PARAMETERS._objects))

    class Options(RewardOptions):
        """Mine."""

        value: float = 1.0
        """What it gives."""

    @register_reward("constant", params=Options)
    class Constant:
        """Always the same."""

        def __init__(self, options):
            self.options = options

        def __call__(self, prompts, completions, **columns):
            return [self.options.value] * len(completions)

    register_reward("plain")(one)
    rewards = build_rewards(entries({"name": "constant", "value": 5.0}, "plain"))
    assert rewards(["p"], ["a"]).totals == [6.0]
    with pytest.raises(ValueError, match="it has no option 'valeu'"):
        RewardEntry(name="constant", valeu=5.0)
