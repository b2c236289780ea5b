"""Rewards that follow from the text."""

import pytest

from trainshed.config.rewards import ExactMatchOptions, FormatOptions, LengthOptions
from trainshed.errors import DataError
from trainshed.rewards.matching import ExactMatch, Format, Length, last_number, plain_words


def matched(text, answer, **options):
    return ExactMatch(ExactMatchOptions(**options))(["p"], [text], answer=[answer]) == [1.0]


@pytest.mark.parametrize(
    ("text", "answer", "options", "right"),
    [
        (" Paris. ", "paris", {}, True),
        ("in Paris", "Paris", {}, False),
        ("Paris", ["London", "Paris"], {}, True),
        ("()", "[]", {}, False),
        ("", "", {}, True),
        ("Paris.", "Paris", {"match": "exact"}, False),
        (" Paris\n", "Paris", {"match": "exact"}, True),
        ("in Paris, now", "Paris", {"match": "contains"}, True),
        ("in Parisian", "Paris", {"match": "contains"}, False),
        ("3 and 4 make 7", 7, {"match": "number"}, True),
        ("it is 1,234.50", "1234.5", {"match": "number"}, True),
        ("none", "7", {"match": "number"}, False),
        ("the answer is 4, no: the answer is 5", "5", {"extract": r"answer is (\d+)"}, True),
        ("5", "5", {"extract": r"answer is (\d+)"}, False),
    ],
)
def test_exact_match(text, answer, options, right):
    assert matched(text, answer, **options) is right


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="reads the column 'answer'") as caught:
        ExactMatch()(["p"], ["a"], response=["a"])
    assert "response" in str(caught.value)


def test_messages_are_read_by_their_last_content():
    found = ExactMatch()([[]], [[{"role": "assistant", "content": "yes"}]], answer=["Yes"])
    assert found == [1.0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a\nb</think> <answer>c</answer>", 1.0),
        ("<answer>c</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>b</answer> more", 0.0),
        ("<think>a</think><answer><answer>b</answer></answer>", 0.0),
        ("<think>a</think>", 0.0),
    ],
)
def test_tags(text, value):
    assert Format(FormatOptions(tags=("think", "answer")))([""], [text]) == [value]


def test_a_pattern_is_for_all_of_it():
    pattern = Format(FormatOptions(pattern=r"\d+\..*"))
    assert pattern([""] * 3, ["1. a\nb", " 1. a ", "a 1."]) == [1.0, 1.0, 0.0]


def test_length_falls_beyond_the_bounds():
    judge = Length(LengthOptions(least=2, most=4, slack=4))
    found = judge([""] * 5, ["a", "a b", "a b c d", "a b c d e", " ".join("abcdefghij")])
    assert found == [0.75, 1.0, 1.0, 0.75, 0.0]


def test_what_is_compared():
    assert plain_words("The  Cat, sat!") == "the cat sat"
    assert last_number("-3.5 of 10") == 10.0
    assert last_number("no") is None
