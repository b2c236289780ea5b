"""Cutting documents: exact spans, full cover, overlap and length, with tokenizers of two kinds."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from trainshed.data.chunking import chunk_documents
from trainshed.data.documents import Document
from trainshed.errors import DataError
from trainshed.models.encoders import default_encoder_directory
from trainshed.models.tokenizers import train_byte_bpe

SENTENCE = "The quick brown fox jumps over the lazy dog, while 12 bees dance; ännä sings."


@pytest.fixture(scope="module")
def byte_bpe():
    return train_byte_bpe([SENTENCE] * 3, vocab_size=320)


@pytest.fixture(scope="module")
def word_pieces():
    return AutoTokenizer.from_pretrained(default_encoder_directory())


@pytest.fixture(params=["byte_bpe", "word_pieces"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def cut(text: str, tokenizer, size: int, overlap: int) -> list:
    document = Document("d", text, "Title", "d.txt")
    return list(chunk_documents([document], tokenizer, max_tokens=size, overlap_tokens=overlap))


def length(tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


WORDS = st.lists(
    st.sampled_from(SENTENCE.split()) | st.text(min_size=1, max_size=12), min_size=0, max_size=60
)
SPACES = st.sampled_from([" ", "\n", "\n\n  ", "\t", "\u00a0"])


# the longest character of these alphabets has 8 word pieces or bytes, so 12 tokens hold any
@settings(max_examples=150, deadline=None)
@given(words=WORDS, space=SPACES, size=st.integers(12, 40), share=st.floats(0, 0.9))
def test_chunks_are_exact_cover_everything_and_fit(byte_bpe, word_pieces, words, space, size, share):
    text = space.join(words)
    for tokenizer in (byte_bpe, word_pieces):
        chunks = cut(text, tokenizer, size, int(size * share))
        covered = [False] * len(text)
        for number, chunk in enumerate(chunks):
            assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip() != ""
            assert length(tokenizer, chunk.text) <= size
            assert (chunk.id, chunk.chunk_id) == (f"d#{number}", number)
            covered[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
        assert all(seen or character.isspace() for seen, character in zip(covered, text, strict=True))
        for before, after in pairwise(chunks):
            assert before.start < after.start
            assert before.end < after.end


def word_tokens(tokenizer, text: str) -> list[list[int]]:
    """Return, for every word of ``text``, the characters at which its tokens start, white space left out."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    words: list[list[int]] = []
    for start, end in offsets:
        if not text[start:end].strip():
            continue
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if start == 0 or text[start - 1].isspace():
            words.append([])
        words[-1].append(start)
    return words


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 80), size=st.integers(20, 60), overlap=st.integers(0, 10))
def test_the_overlap_is_as_asked_up_to_a_word(byte_bpe, word_pieces, count, size, overlap):
    text = " ".join((SENTENCE.split() * 6)[:count])
    for tokenizer in (byte_bpe, word_pieces):
        words = word_tokens(tokenizer, text)
        for before, after in pairwise(cut(text, tokenizer, size, overlap)):
            shared = sum(after.start <= start < before.end for word in words for start in word)
            longest = max(len(word) for word in words)
            assert overlap <= shared <= (overlap and overlap + longest - 1)
            assert text[after.start - 1] == " "


def test_a_chunk_is_as_long_as_fits(tokenizer):
    text = " ".join(SENTENCE.split() * 10)
    chunks = cut(text, tokenizer, 30, 0)
    for before, after in pairwise(chunks):
        word = after.text.split()[0]
        assert length(tokenizer, f"{before.text} {word}") > 30


def test_everything_about_the_document_is_kept(tokenizer):
    documents = [Document("a", "one two three", "A", "a.txt"), Document("b", "four", "B", "b.txt")]
    chunks = list(chunk_documents(documents, tokenizer, max_tokens=50))
    assert [(c.id, c.text, c.title, c.doc_id, c.chunk_id, c.start, c.end, c.source) for c in chunks] == [
        ("a#0", "one two three", "A", "a", 0, 0, 13, "a.txt"),
        ("b#0", "four", "B", "b", 0, 0, 4, "b.txt"),
    ]


def test_a_word_without_end_is_cut_between_tokens(tokenizer):
    text = "x0y1" * 24  # word pieces make one unknown token of words beyond 100 characters
    chunks = cut(text, tokenizer, 12, 5)
    assert len(chunks) > 5
    assert chunks[0].start == 0
    assert chunks[-1].end == len(text)
    assert all(length(tokenizer, chunk.text) <= 12 for chunk in chunks)


def test_a_character_is_never_cut(byte_bpe):
    text = "😀" * 30  # four tokens each
    chunks = cut(text, byte_bpe, 10, 0)
    assert {chunk.text for chunk in chunks} == {"😀😀"}
    with pytest.raises(DataError, match="'😀' is longer than 3 tokens") as caught:
        cut(text, byte_bpe, 3, 0)
    assert caught.value.where == "document d, character 0"


def test_white_space_takes_no_room(byte_bpe):
    text = "one" + "\n \t" * 50 + "two"
    assert [chunk.text for chunk in cut(text, byte_bpe, 10, 0)] == ["one", "two"]


def test_a_blank_document_gives_nothing(tokenizer):
    assert cut(" \n\t ", tokenizer, 10, 2) == []
    assert cut("", tokenizer, 10, 2) == []


@pytest.mark.parametrize(("size", "overlap"), [(10, 10), (0, 0), (10, -1)])
def test_numbers_that_make_no_sense(byte_bpe, size, overlap):
    with pytest.raises(DataError, match="does not fit"):
        cut("text", byte_bpe, size, overlap)


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="Slow does not say which characters"):
        cut("text", Slow(), 10, 0)
