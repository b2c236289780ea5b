"""ShareGPT and Alpaca."""

import pytest

from trainshed.data.foreign import foreign_layout, translate
from trainshed.data.reading import read_checked
from trainshed.errors import DataError

TALK = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def test_sharegpt():
    assert foreign_layout(["conversations", "id"]) == "sharegpt"
    made = translate({"conversations": TALK, "system": "Be brief.", "id": 3}, "sharegpt", "")
    assert made == {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES], "id": 3}
    pair = {"conversations": TALK[:1], "chosen": TALK[1], "rejected": {"from": "gpt", "value": "No."}}
    made = translate(pair, "sharegpt", "")
    assert made["prompt"] == MESSAGES[:1]
    assert made["chosen"] == MESSAGES[1:]
    assert made["rejected"] == [{"role": "assistant", "content": "No."}]
    with pytest.raises(DataError, match="from 'narrator'") as caught:
        translate({"conversations": [{"from": "narrator", "value": "x"}]}, "sharegpt", "a, line 2")
    assert caught.value.where == "a, line 2, column 'conversations', turn 1"


def test_alpaca():
    row = {"instruction": "Add {these}.", "input": "1 2", "output": "3"}
    assert foreign_layout(row) == "alpaca"
    made = translate(row, "alpaca", "")
    assert made["prompt"].endswith("### Instruction:\nAdd {these}.\n\n### Input:\n1 2\n\n### Response:\n")
    assert made["completion"] == "3"
    assert "### Input" not in translate({**row, "input": ""}, "alpaca", "")["prompt"]
    talk = translate({**row, "history": [["a", "b"]]}, "alpaca", "", conversational=True)["messages"]
    assert [m["content"] for m in talk] == ["a", "b", "Add {these}.\n\n1 2", "3"]
    with pytest.raises(DataError, match="no place for 'history'"):
        translate({**row, "history": [["a", "b"]]}, "alpaca", "")


def test_they_are_read_with_a_note():
    rows, fmt, notes = read_checked([("a, line 1", {"conversations": TALK})], where="a")
    assert fmt.name == "messages"
    assert rows == [("a, line 1", {"messages": MESSAGES})]
    assert notes == ["a: read as ShareGPT: `conversations` of from and value become `messages`"]
    _, fmt, notes = read_checked([("a", {"instruction": "x", "output": "y"})], where="a")
    assert fmt.name == "prompt-completion"
    assert "read as Alpaca" in notes[0]
