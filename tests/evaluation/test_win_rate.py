"""Win rates by hand: judges that score, judges that compare, one that always likes the first better."""

import pytest

from trainshed.errors import ConfigError, RunError
from trainshed.evaluation.significance import Resampling
from trainshed.evaluation.win_rate import judge_pairs

PROMPTS = ["p", "q", "r", "s"]
OURS, THEIRS = ["aaa", "b", "cc", ""], ["a", "bbb", "cc", "d"]


def longer(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


def compare_lengths(prompts, first, second):
    sizes = [(len(a), len(b)) for a, b in zip(first, second, strict=True)]
    return ["tie" if a == b else "first" if a > b else "second" for a, b in sizes]


def test_a_judge_that_scores():
    found = judge_pairs(longer, PROMPTS, OURS, THEIRS)
    assert found.wins == (1.0, 0.0, 0.5, 0.0)
    assert found.details[0] == {"score": 3.0, "against": 1.0}
    scores = found.scores(PROMPTS, Resampling(samples=500))
    assert scores.mean("win_rate") == 0.375
    assert scores.mean("ties") == 0.25
    assert scores.metrics == ["win_rate", "ties"]
    interval = scores.interval("win_rate")
    assert interval.low <= 0.125
    assert 0.6 <= interval.high <= 1.0


def test_a_judge_that_compares_says_the_same_in_both_orders():
    found = judge_pairs(compare_lengths, PROMPTS, OURS, THEIRS)
    assert found.wins == (1.0, 0.0, 0.5, 0.0)
    assert found.details[0] == {"shown_first": "first", "shown_second": "second"}
    scores = found.scores(PROMPTS)
    assert (scores.mean("win_rate"), scores.mean("consistency")) == (0.375, 1.0)


@pytest.mark.parametrize("word", ["first", "second"])
def test_a_judge_of_positions_decides_nothing(word):
    def judge(prompts, first, second):
        return [word] * len(prompts)

    found = judge_pairs(judge, PROMPTS, OURS, THEIRS)
    assert found.wins == (0.5,) * 4
    assert found.scores(PROMPTS).mean("consistency") == 0.0


def test_a_tie_in_one_order_is_a_quarter():
    def judge(prompts, first, second):
        return ["first" if a == "aaa" else "tie" for a in first]

    assert judge_pairs(judge, PROMPTS, OURS, THEIRS).wins == (0.75, 0.5, 0.5, 0.5)


def test_columns_reach_a_judge_that_asks_for_them():
    seen = []

    def judge(prompts, first, second, answer):
        seen.append(answer)
        return ["tie"] * len(prompts)

    judge_pairs(judge, PROMPTS, OURS, THEIRS, columns={"answer": list("wxyz"), "other": [1] * 4})
    assert seen == [list("wxyz")] * 2


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["first"], "gave 1 values for 4 pairs"),
        ("first", "gave 'first' for 4 pairs"),
        (["first", "tie", "left", "tie"], "said 'left'"),
    ],
)
def test_what_is_no_verdict(given, match):
    def judge(prompts, first, second):
        return given

    with pytest.raises(RunError, match=match) as caught:
        judge_pairs(judge, PROMPTS, OURS, THEIRS, name="mine:judge")
    assert caught.value.where == "mine:judge"


def test_a_function_that_is_no_judge():
    with pytest.raises(ConfigError, match="arguments are a, b"):
        judge_pairs(lambda a, b: [], PROMPTS, OURS, THEIRS)
