"""Training a byte-level BPE tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.errors import ConfigError, DataError
from trainshed.models.tokenizers import train_byte_bpe

TEXTS = [f"def function_{i}(value): return value + {i}" for i in range(50)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(TEXTS, vocab_size=300)


@given(st.text(max_size=40).filter(lambda text: "<" not in text))
def test_every_text_comes_back(text):
    tokenizer = train_byte_bpe(TEXTS[:3], vocab_size=260)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_and_size(tokenizer):
    assert len(tokenizer) == 300
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("ab<eos>")["input_ids"][-1] == 1
    assert len(tokenizer(TEXTS[0])["input_ids"]) < len(TEXTS[0]) / 2


def test_same_texts_same_tokenizer(tokenizer):
    again = train_byte_bpe(iter(TEXTS), vocab_size=300)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_saved_and_loaded(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS[5])["input_ids"] == tokenizer(TEXTS[5])["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)


def test_bad_requests():
    with pytest.raises(ConfigError, match="at least 258"):
        train_byte_bpe(TEXTS, vocab_size=200)
    with pytest.raises(ConfigError, match="special"):
        train_byte_bpe(TEXTS, vocab_size=300, special_tokens=("<pad>",))
    with pytest.raises(DataError, match="no text"):
        train_byte_bpe([], vocab_size=300)
