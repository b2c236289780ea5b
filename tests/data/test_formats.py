"""Formats are recognised from columns, every row is checked, and nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.config.formats import ACCEPTS, COLUMNS, FORMATS, accepted_formats
from trainshed.data.conversion import CONVERSIONS
from trainshed.data.formats import (
    RowFormat,
    check_row,
    choose_format,
    common_start,
    fitting_formats,
    prompt_key,
    recognise_row,
)
from trainshed.errors import DataError, UnknownNameError

ASK = [{"role": "user", "content": "Why?"}]
GOOD = [{"role": "assistant", "content": "Because."}]
BAD = [{"role": "assistant", "content": "No."}]
PLAIN = {
    "text": "t",
    "messages": [*ASK, *GOOD],
    "prompt": "p",
    "completion": "c",
    "chosen": "good",
    "rejected": "bad",
    "label": True,
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_columns_of_a_format_are_recognised(name):
    row = {column: PLAIN[column] for column in COLUMNS[name]}
    assert fitting_formats(row) == [name]
    assert choose_format(row) == name
    fmt = recognise_row(row, name, "here")
    assert fmt == RowFormat(name, conversational=name == "messages")
    assert check_row(row, fmt, "here") == row


def test_a_part_of_a_format_is_not_another_one():
    assert fitting_formats(["prompt", "completion", "label", "id"]) == ["unpaired"]
    assert fitting_formats(["prompt", "chosen", "rejected"]) == ["preference"]
    # trained on as prompt and completion, the bad answers would be learned
    assert choose_format(PLAIN.keys() - {"text", "messages", "chosen", "rejected"}, accepts=("unpaired",))
    unpaired = ["prompt", "completion", "label"]
    assert choose_format(unpaired, accepts=("prompt-completion",), convertible=CONVERSIONS) == "unpaired"


def test_several_formats_are_told_apart_by_the_algorithm_or_not_at_all():
    columns = ["prompt", "chosen", "rejected", "messages"]
    assert choose_format(columns, accepts=("preference",)) == "preference"
    assert choose_format(columns, accepts=("messages", "text")) == "messages"
    with pytest.raises(DataError, match=r"several formats: preference .*messages") as caught:
        choose_format(columns)
    assert "data.format" in caught.value.fix
    assert choose_format(columns, wanted="messages") == "messages"
    with pytest.raises(DataError, match="no format that is taken here"):
        choose_format(columns, wanted="text")


def test_other_spellings_are_not_guessed_but_named():
    with pytest.raises(DataError) as caught:
        choose_format(["question", "choosen", "reject"], accepts=("preference",), where="a.jsonl, line 1")
    error = caught.value
    assert "choosen, question, reject" in error.what
    assert error.where == "a.jsonl, line 1"
    assert "preference (prompt, chosen, rejected)" in error.fix
    assert "data.columns: {prompt: <column>, chosen: choosen, rejected: reject}" in error.fix


def test_conversations_and_prompts_within_answers():
    row = {"chosen": [*ASK, *GOOD], "rejected": [*ASK, *BAD]}
    assert recognise_row(row, "preference", "") == RowFormat("preference", True, True)
    explicit = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
    assert recognise_row(explicit, "preference", "") == RowFormat("preference", True, False)
    # as in UltraFeedback: the prompt once more, as text
    fmt = recognise_row({"prompt": "Why?", **row}, "preference", "")
    assert fmt == RowFormat("preference", True, True)
    assert "prompt" not in check_row({"prompt": "Why?", **row}, fmt, "")
    with pytest.raises(DataError, match="not what the conversations"):
        check_row({"prompt": "Else?", **row}, fmt, "")


@pytest.mark.parametrize(
    ("name", "row", "what", "column"),
    [
        ("text", {"text": " \n"}, "the value is empty", "text"),
        ("text", {"text": 3}, "a number", "text"),
        ("text", {"text": None}, "null", "text"),
        ("prompt-completion", {"prompt": "p", "completion": ""}, "the value is empty", "completion"),
        ("prompt-completion", {"prompt": "p", "completion": GOOD}, "a conversation, while", "completion"),
        ("prompt-completion", {"prompt": "p"}, "no column 'completion'", None),
        ("unpaired", {"prompt": "p", "completion": "c", "label": "true"}, "the label is a string", "label"),
        ("unpaired", {"prompt": "p", "completion": "c", "label": 2}, "the label is a number", "label"),
        ("unpaired", {"prompt": "p", "completion": " ", "label": True}, "empty", "completion"),
        ("preference", {"prompt": "p", "chosen": "", "rejected": "r"}, "empty", "chosen"),
    ],
)
def test_a_wrong_plain_row_is_named(name, row, what, column):
    with pytest.raises(DataError) as caught:
        check_row(row, RowFormat(name), "a.jsonl, line 7")
    assert what in caught.value.what
    assert caught.value.where == "a.jsonl, line 7" + (f", column {column!r}" if column else "")


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "an empty list"),
        (["hello"], "it is a string"),
        ([{"content": "x"}], "no role"),
        ([{"role": "human", "content": "x"}], "role is 'human'"),
        ([{"role": "user", "content": " "}], "content is empty"),
        ([{"role": "user", "content": None}], "content is null"),
        ([*ASK, {"role": "system", "content": "s"}], "after others"),
        (ASK, "no turn of the assistant"),
    ],
)
def test_a_wrong_conversation_is_named(messages, what):
    with pytest.raises(DataError, match=what) as caught:
        check_row({"messages": messages}, RowFormat("messages", True), "a.jsonl, line 7")
    assert caught.value.where.startswith("a.jsonl, line 7, column 'messages'")


def test_turns_of_prompts_and_answers():
    fmt = RowFormat("prompt-completion", True)
    with pytest.raises(DataError, match="the prompt ends with a turn of the assistant"):
        check_row({"prompt": [*ASK, *GOOD], "completion": GOOD}, fmt, "")
    with pytest.raises(DataError, match="the answer begins with a turn of the user"):
        check_row({"prompt": ASK, "completion": [*ASK, *GOOD]}, fmt, "")
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}], "name": None}
    checked = check_row({"prompt": ASK, "completion": [call]}, fmt, "")
    assert checked["completion"] == [{"role": "assistant", "tool_calls": [{"name": "f"}]}]


def test_bad_answers_may_be_empty_and_labels_are_booleans():
    assert check_row({"prompt": "p", "chosen": "c", "rejected": ""}, RowFormat("preference"), "")
    row = check_row({"prompt": "p", "completion": "", "label": 0}, RowFormat("unpaired"), "")
    assert row["label"] is False


def test_prompts_keep_all_columns_and_others_what_trainers_know():
    row = {"prompt": "p", "answer": "4", "tests": ["x"], "split": "train", "note": None}
    assert check_row(row, RowFormat("prompt"), "") == {"prompt": "p", "answer": "4", "tests": ["x"]}
    row = {"text": "t", "id": 3, "url": "x"}
    assert check_row(row, RowFormat("text"), "") == {"text": "t", "id": 3}


def test_rows_of_one_prompt_have_one_key():
    fmt = RowFormat("prompt-completion")
    assert prompt_key({"prompt": " Why \n now?"}, fmt) == prompt_key({"prompt": "why now?"}, fmt)
    assert prompt_key({"prompt": "why not?"}, fmt) != prompt_key({"prompt": "why now?"}, fmt)
    talk = prompt_key({"messages": [*ASK, *GOOD, *ASK, *BAD]}, RowFormat("messages", True))
    assert talk == prompt_key({"messages": [*ASK, *BAD]}, RowFormat("messages", True))
    assert talk == prompt_key({"prompt": ASK}, RowFormat("prompt", True))
    implicit = RowFormat("preference", True, True)
    assert talk == prompt_key({"chosen": [*ASK, *GOOD], "rejected": [*ASK, *BAD]}, implicit)


@pytest.mark.parametrize(
    ("one", "other", "start"),
    [
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("The sky is", "The sky is blue.", "The sky is"),
        ("The sk", "The sky is blue.", "The"),
        (
            "\n\nHuman: Hi\n\nAssistant: I am well",
            "\n\nHuman: Hi\n\nAssistant: I am not",
            "\n\nHuman: Hi\n\nAssistant:",
        ),
        ("a", "b", ""),
    ],
)
def test_a_shared_start_has_whole_words(one, other, start):
    assert common_start(one, other) == common_start(other, one) == start


@given(st.text("ab \n", max_size=20), st.text("ab \n", max_size=20))
def test_a_shared_start_is_one(one, other):
    start = common_start(one, other)
    assert one.startswith(start)
    assert other.startswith(start)
    for text in (one, other):
        assert text == start or not start or not start[-1:].isalnum() or not text[len(start)].isalnum()


def test_every_algorithm_takes_formats_that_there_are():
    for name, formats in ACCEPTS.items():
        assert set(formats) <= set(FORMATS), name
    assert accepted_formats("dpo_online") == ("prompt",)
    with pytest.raises(UnknownNameError, match="'dpoo'"):
        accepted_formats("dpoo")
