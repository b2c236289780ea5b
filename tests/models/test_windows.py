"""Windows of texts: nothing is lost, overlaps are as long as asked, pairs stand in each."""

import itertools

import pytest
import torch

from trainshed.errors import DataError
from trainshed.models.tokenizers import train_encoder_bpe
from trainshed.models.windows import collate_windows, text_windows

TEXT = " ".join(f"word{i}" for i in range(40))


@pytest.fixture(scope="module")
def tokenizer():
    return train_encoder_bpe([TEXT, "a pair of words"], vocab_size=400)


def test_a_text_is_framed_as_bert_frames_it(tokenizer):
    ((only,),) = text_windows(tokenizer, ["word1"], ["pair"], max_length=64)
    tokens = tokenizer.convert_ids_to_tokens(only.ids)
    assert tokens[0] == "<cls>"
    assert tokens.count("<eos>") == 2
    second = tokens.index("<eos>") + 1
    assert only.types == [0] * second + [1] * (len(tokens) - second)


def test_windows_overlap_and_lose_nothing(tokenizer):
    (windows,) = text_windows(tokenizer, [TEXT], max_length=20, overlap=5)
    bodies = [each.ids[1:-1] for each in windows]
    assert len(windows) > 3
    assert all(len(each) <= 20 for each in windows)
    joined = bodies[0]
    for before, body in itertools.pairwise(bodies):
        assert body[:5] == before[-5:]
        joined = joined + body[5:]
    assert joined == tokenizer(TEXT, add_special_tokens=False)["input_ids"]


def test_without_overlap_the_end_is_left_out(tokenizer):
    ((only,),) = text_windows(tokenizer, [TEXT], max_length=20)
    assert len(only) == 20
    assert only.ids[1:-1] == tokenizer(TEXT, add_special_tokens=False)["input_ids"][:18]


def test_no_more_windows_than_asked(tokenizer):
    assert [
        len(each)
        for each in text_windows(tokenizer, [TEXT, "word1"], max_length=20, overlap=5, max_windows=2)
    ] == [2, 1]


def test_a_pair_stands_in_every_window(tokenizer):
    (windows,) = text_windows(tokenizer, [TEXT], ["a pair"], max_length=30, overlap=4)
    pair = tokenizer("a pair", add_special_tokens=False)["input_ids"]
    assert len(windows) > 2
    assert all(each.ids[-len(pair) - 1 : -1] == pair for each in windows)
    with pytest.raises(DataError, match="no room"):
        text_windows(tokenizer, ["word1"], [TEXT], max_length=30, overlap=4)


def test_a_batch_is_padded_and_masked(tokenizer):
    rows = [only for (only,) in text_windows(tokenizer, ["word1", "word1 word2"], max_length=20)]
    batch = collate_windows(rows, tokenizer.pad_token_id)
    length = len(rows[0])
    assert batch["input_ids"][0, :length].tolist() == rows[0].ids
    assert set(batch["input_ids"][0, length:].tolist()) == {tokenizer.pad_token_id}
    assert batch["attention_mask"].sum(1).tolist() == [len(row) for row in rows]
    assert batch["token_type_ids"].dtype == torch.long
