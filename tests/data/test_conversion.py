"""Converting between formats."""

import datasets
import pytest
import trl.data_utils

from trainshed.config.formats import FORMATS
from trainshed.data.class_order import one_class_batches
from trainshed.data.conversion import CONVERSIONS, choose_target, convert, explicit_prompt
from trainshed.data.formats import RowFormat, check_row
from trainshed.errors import DataError

ASK = [{"role": "user", "content": "Why?"}]
GOOD = [{"role": "assistant", "content": "Because."}]
BAD = [{"role": "assistant", "content": "No."}]
TALK = [*ASK, *GOOD, *ASK, *BAD]
SOURCES = {
    RowFormat("preference"): {"prompt": "p", "chosen": " good", "rejected": " bad", "id": 1},
    RowFormat("preference", True): {"prompt": ASK, "chosen": GOOD, "rejected": BAD, "id": 1},
    RowFormat("preference", True, True): {"chosen": [*ASK, *GOOD], "rejected": [*ASK, *BAD]},
    RowFormat("unpaired"): {"prompt": "p", "completion": " good", "label": True},
    RowFormat("prompt-completion"): {"prompt": "p", "completion": " good"},
    RowFormat("prompt-completion", True): {"prompt": ASK, "completion": GOOD},
    RowFormat("messages", True): {"messages": TALK},
}


def one(row, source, target):
    made, fmt = convert([("a, line 1", row)], source, target)
    assert all(where == "a, line 1" for where, _ in made)
    return [row for _, row in made], fmt


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_what_is_made_is_of_the_format(source, target):
    tried = 0
    for fmt, row in SOURCES.items():
        if fmt.name == source:
            rows, made = one(row, fmt, target)
            assert made == RowFormat(target, fmt.conversational or target == "messages")
            assert rows
            assert all(check_row(row, made, "") == row for row in rows)
            tried += 1
    assert tried


@pytest.mark.parametrize("conversational", [False, True])
def test_unpaired_are_the_same_rows_as_in_trl(conversational):
    pair = SOURCES[RowFormat("preference", conversational)]
    rows = [{**pair, "id": number} for number in range(6)]
    made, _ = convert([("", row) for row in rows], RowFormat("preference", conversational), "unpaired")
    theirs = trl.data_utils.unpair_preference_dataset(datasets.Dataset.from_list(rows))
    assert sorted((str(row) for _, row in made)) == sorted(
        str({name: row[name] for name in ("prompt", "completion", "label", "id")}) for row in theirs
    )
    # ours never in their order
    assert one_class_batches(list(theirs), 2)
    assert not one_class_batches([row for _, row in made], 2)


def test_answers_of_prompts_are_kept_for_rewards():
    assert one(SOURCES[RowFormat("prompt-completion")], RowFormat("prompt-completion"), "prompt")[0] == [
        {"prompt": "p", "answer": "good"}
    ]
    rows, _ = one({"messages": TALK}, RowFormat("messages", True), "prompt")
    assert rows == [{"prompt": TALK[:3], "answer": "No."}]


def test_the_last_turn_is_the_answer():
    rows, _ = one({"messages": TALK}, RowFormat("messages", True), "prompt-completion")
    assert rows == [{"prompt": TALK[:3], "completion": TALK[3:]}]
    rows, _ = one({"messages": [*TALK, *ASK]}, RowFormat("messages", True), "prompt-completion")
    assert rows == [{"prompt": TALK[:3], "completion": TALK[3:]}]
    with pytest.raises(DataError, match="speaks first") as caught:
        one({"messages": GOOD}, RowFormat("messages", True), "prompt-completion")
    assert caught.value.where == "a, line 1"


def test_only_wanted_answers_are_trained_on():
    rows = [("", {"prompt": f"p{n}", "completion": "c", "label": n % 3 == 0}) for n in range(9)]
    made, _ = convert(rows, RowFormat("unpaired"), "prompt-completion")
    assert [row["prompt"] for _, row in made] == ["p0", "p3", "p6"]
    with pytest.raises(DataError, match="nothing is left"):
        convert(rows[1:2], RowFormat("unpaired"), "prompt-completion")


def test_one_prompt_of_several_pairs():
    rows = [("", {"prompt": "p", "chosen": str(n), "rejected": "r"}) for n in range(3)]
    assert len(convert(rows, RowFormat("preference"), "prompt")[0]) == 1


def test_a_prompt_within_the_answers():
    made = explicit_prompt({"chosen": [*TALK[:3], *GOOD], "rejected": [*TALK[:3], *BAD]}, "")
    assert made == {"prompt": TALK[:3], "chosen": GOOD, "rejected": BAD}
    # what they share of the answer belongs to the answer
    made = explicit_prompt({"chosen": [*ASK, *GOOD, *ASK, *GOOD], "rejected": [*ASK, *GOOD]}, "")
    assert made == {"prompt": ASK, "chosen": [*GOOD, *ASK, *GOOD], "rejected": GOOD}
    made = explicit_prompt({"chosen": "The sky is blue.", "rejected": "The sky is black."}, "")
    assert made == {"prompt": "The sky is", "chosen": " blue.", "rejected": " black."}
    # cut between letters, as there, a word is divided between prompt and answer
    theirs = trl.data_utils.extract_prompt({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert theirs["prompt"] == "The sky is bl"
    for chosen, rejected in (("blue", "red"), ("same", "same"), (GOOD, BAD)):
        with pytest.raises(DataError, match="chosen and rejected") as caught:
            explicit_prompt({"chosen": chosen, "rejected": rejected}, "a, line 4")
        assert caught.value.where == "a, line 4"


def test_what_has_no_way_is_refused():
    for target in FORMATS[1:]:
        with pytest.raises(DataError, match=r"text .* cannot be made into") as caught:
            one({"text": "t"}, RowFormat("text"), target)
        assert "a dataset with prompts" in caught.value.fix
    with pytest.raises(DataError, match="cannot be made into text") as caught:
        one({"prompt": "p", "completion": "c"}, RowFormat("prompt-completion"), "text")
    assert "messages, prompt" in caught.value.fix


def test_the_best_format_of_an_algorithm_is_chosen():
    assert choose_target("text", ("messages", "prompt-completion", "text")) == "text"
    assert choose_target("preference", ("messages", "prompt-completion", "text")) == "messages"
    assert choose_target("preference", ("unpaired",)) == "unpaired"
    with pytest.raises(DataError, match="cannot be made into preference"):
        choose_target("unpaired", ("preference",))
