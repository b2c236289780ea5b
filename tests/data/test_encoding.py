"""Tokens are those that the trainers of trl make, row by row."""

import copy
import json
from types import SimpleNamespace

import datasets
import pytest

from trainshed.data.encoding import Treatment, encode_rows, shared_length
from trainshed.data.formats import RowFormat
from trainshed.errors import ConfigError, DataError

PLAIN = [
    {"prompt": "the red cat", "chosen": " keeps the word", "rejected": " has a word", "label": True},
    {"prompt": "which word ", "chosen": "the<eos>", "rejected": "", "label": False},
    {"prompt": "wh", "chosen": "ich word", "rejected": "en the cat", "label": True},
]


def talk(text, role):
    return [{"role": role, "content": text}]


CONVERSATIONS = [
    {
        "prompt": talk(row["prompt"], "user"),
        "chosen": talk(row["chosen"], "assistant"),
        "rejected": talk(row["rejected"] or "none", "assistant"),
        "label": row["label"],
    }
    for row in PLAIN
]


def encoded(rows, fmt, tokenizer, treatment=None):
    places = [f"row {n}" for n in range(len(rows))]
    return [made for _, made in encode_rows(rows, places, fmt, tokenizer, treatment or Treatment())]


def prepared(trainer, config, rows, tokenizer, **more):
    """Return the rows as a trainer of trl prepares them."""
    me = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False, **more)
    settings = dict(
        dataset_num_proc=None, max_length=None, truncation_mode="keep_start", shuffle_dataset=False
    )
    settings |= dict(dataset_text_field="text", assistant_only_loss=False)
    return trainer._prepare_dataset(
        me, datasets.Dataset.from_list(rows), tokenizer, SimpleNamespace(**settings), *config
    )


@pytest.mark.parametrize("rows", [PLAIN, CONVERSATIONS], ids=["plain", "conversational"])
def test_preferences_as_dpo_prepares_them(rows, tokenizer, chatty):
    from trl import DPOTrainer

    conversational = rows is CONVERSATIONS
    used = chatty if conversational else tokenizer
    theirs = prepared(DPOTrainer, ("train",), rows, used)
    ours = encoded(rows, RowFormat("preference", conversational), used)
    for (chosen, rejected), expected in zip(ours, theirs, strict=True):
        assert chosen.ids[: chosen.start] == rejected.ids[: rejected.start] == expected["prompt_ids"]
        assert chosen.ids[chosen.start :] == expected["chosen_ids"]
        assert rejected.ids[rejected.start :] == expected["rejected_ids"]


@pytest.mark.parametrize("rows", [PLAIN, CONVERSATIONS], ids=["plain", "conversational"])
def test_pairs_as_sft_and_kto_prepare_them(rows, tokenizer, chatty):
    from trl import KTOTrainer, SFTTrainer

    conversational = rows is CONVERSATIONS
    used = chatty if conversational else tokenizer
    pairs = [{"prompt": row["prompt"], "completion": row["chosen"], "label": row["label"]} for row in rows]
    ours = [one for (one,) in encoded(pairs, RowFormat("unpaired", conversational), used)]
    for one, expected in zip(ours, prepared(KTOTrainer, ("eval",), pairs, used, _is_vlm=False), strict=True):
        assert one.ids[: one.start] == expected["prompt_ids"]
        assert one.ids[one.start :] == expected["completion_ids"]
    pairs = [{"prompt": row["prompt"], "completion": row["completion"]} for row in pairs]
    theirs = prepared(
        SFTTrainer, (False, None, "train"), pairs, used, completion_only_loss=True, chat_template=None
    )
    for one, expected in zip(ours, theirs, strict=True):
        assert one.ids == expected["input_ids"]
        assert [i if t else -100 for i, t in zip(one.ids, one.trained, strict=True)] == expected["labels"]


def test_rewards_as_they_are_prepared(tokenizer):
    from trl import RewardTrainer

    theirs = prepared(RewardTrainer, ("train",), PLAIN, tokenizer)
    for (chosen, rejected), expected in zip(
        encoded(PLAIN, RowFormat("preference"), tokenizer), theirs, strict=True
    ):
        assert chosen.ids == expected["chosen_ids"]
        assert rejected.ids == expected["rejected_ids"]


def test_the_assistants_turns_alone(chatty):
    rows = [{"messages": [*talk("the cat", "user"), *talk("a word", "assistant")] * 2}]
    (((one,),)) = encoded(rows, RowFormat("messages", True), chatty, Treatment(assistant_only=True))
    seen = chatty.decode([i for i, t in zip(one.ids, one.trained, strict=True) if t])
    assert seen == "a word<eos>a word<eos>"
    ((whole,),) = encoded(rows, RowFormat("messages", True), chatty)
    assert whole.ids == one.ids
    assert all(whole.trained)


def test_tools_and_options_of_a_row_reach_the_template(tokenizer):
    made = copy.deepcopy(tokenizer)
    made.chat_template = (
        "{{ tools[0]['function']['name'] if tools else '' }}{{ tone }}"
        "{% for m in messages %} {{ m['content'] }}{% endfor %}"
    )
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    row = {"messages": [*talk("the cat", "user"), *talk("a word", "assistant")]}
    rows = [
        row,
        {**row, "tools": tools},
        {**row, "tools": json.dumps(tools), "chat_template_kwargs": {"tone": "!"}},
    ]
    written = [made.decode(one.ids) for (one,) in encoded(rows, RowFormat("messages", True), made)]
    assert written == [" the cat a word", "look the cat a word", "look! the cat a word"]
    with pytest.raises(DataError, match="not valid JSON") as caught:
        encoded([{**row, "tools": "[look]"}], RowFormat("messages", True), made)
    assert caught.value.where == "row 0, column 'tools'"


def test_a_template_that_writes_the_first_token_is_not_given_another(with_bos):
    from trl import DPOTrainer

    made = copy.deepcopy(with_bos)
    made.chat_template = "<s> {% for m in messages %}{{ m['content'] }} {% endfor %}</s>"
    row = {"prompt": talk("a", "user"), "chosen": talk("b", "assistant"), "rejected": talk("c", "assistant")}
    ((chosen, _),) = encoded([row], RowFormat("preference", True), made)
    assert made.convert_ids_to_tokens(chosen.ids) == ["<s>", "a", "b", "</s>"]
    (expected,) = prepared(DPOTrainer, ("train",), [row], made)
    assert chosen.ids == expected["prompt_ids"] + expected["chosen_ids"]


def test_texts_and_prompts(tokenizer, with_bos):
    ((one,),) = encoded([{"text": "a b"}], RowFormat("text"), with_bos)
    assert with_bos.decode(one.ids) == "<s> a b </s>" or with_bos.convert_ids_to_tokens(one.ids)[0] == "<s>"
    ((one,),) = encoded([{"text": "the cat"}], RowFormat("text"), tokenizer, Treatment(append_eos=False))
    assert tokenizer.decode(one.ids) == "the cat"
    ((one,),) = encoded([{"prompt": "the cat"}], RowFormat("prompt"), tokenizer)
    assert tokenizer.decode(one.ids) == "the cat"
    assert not any(one.trained)


def test_what_is_cut():
    from trainshed.data.encoding import Encoded

    one = Encoded("completion", [0, 1, 2, 3, 4], 2, 2, [0, 0, 1, 1, 1])
    assert one.ids[one.cut(Treatment())] == [0, 1, 2, 3, 4]
    assert one.ids[one.cut(Treatment(max_length=3))] == [0, 1, 2]
    assert one.ids[one.cut(Treatment(max_length=3, overlong="keep_end"))] == [2, 3, 4]
    assert one.ids[one.cut(Treatment(max_length=9, overlong="keep_end"))] == [0, 1, 2, 3, 4]


def test_shared_length():
    assert shared_length([1, 2], [1, 2, 3]) == 2
    assert shared_length([1, 2, 4], [1, 2, 3]) == 2
    assert shared_length([], [1]) == 0


def test_a_conversation_that_the_template_refuses_is_named(chatty, tokenizer):
    rows = [*CONVERSATIONS, {**CONVERSATIONS[0], "prompt": talk("x", "tool")}]
    with pytest.raises(DataError, match="no tools here") as caught:
        encoded(rows, RowFormat("preference", True), chatty)
    assert caught.value.where == "row 3"
    with pytest.raises(ConfigError, match="no chat template"):
        encoded(CONVERSATIONS, RowFormat("preference", True), tokenizer)
