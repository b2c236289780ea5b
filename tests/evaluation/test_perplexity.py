"""Perplexity against asking the model token by token, each with the context that its window gives it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny_language import make_model, make_tokenizer, successors
from trainshed.data.formats import RowFormat
from trainshed.errors import ConfigError, DataError, ModelError
from trainshed.evaluation.language import LanguageModel
from trainshed.evaluation.perplexity import measure_perplexity, token_spans

TEXT, PAIR = RowFormat("text"), RowFormat("prompt-completion")
LONG = " ".join(f"n{number % 10} after n{number % 7} is n3 ." for number in range(9))
TEXTS = [{"text": LONG}, {"text": "after n3 is n4 ."}, {"text": "n1"}]


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(make_model(), make_tokenizer(), 12)


def places(rows):
    return [f"row {number}" for number in range(1, len(rows) + 1)]


@torch.no_grad()
def slowly(lm, ids, first, window, stride):
    """The NLL of ``ids[first:]``, one forward pass a token, with the context that the definition gives."""
    total = 0.0
    # the first window is full; each later one moves on by the stride
    ends = [min(len(ids), max(window, first + stride))]
    while ends[-1] < len(ids):
        ends.append(min(len(ids), ends[-1] + stride))
    for place in range(first, len(ids)):
        end = next(end for end in ends if end > place)
        context = ids[max(0, end - window) : place]
        logits = lm.model(torch.tensor([context])).logits[0, -1].double()
        total -= float(torch.log_softmax(logits, -1)[ids[place]])
    return total


@pytest.mark.parametrize("stride", [1, 5, 11, None])
def test_texts_token_by_token(lm, stride):
    found = measure_perplexity(lm, TEXTS, places(TEXTS), TEXT, stride=stride)
    nll, tokens = 0.0, 0
    for row, each in zip(TEXTS, found.values["token_nll"], strict=True):
        # this tokenizer begins no text, so the token that ends one stands before
        ids = [1, *lm.tokenizer(row["text"])["input_ids"]]
        own = slowly(lm, ids, 1, 12, stride or 6)
        assert each == pytest.approx(own / (len(ids) - 1), abs=1e-5)
        nll, tokens = nll + own, tokens + len(ids) - 1
    assert tokens == found.counts["n_tokens"] == sum(len(row["text"].split()) for row in TEXTS)
    assert found.mean("token_nll") == pytest.approx(nll / tokens, abs=1e-5)
    assert found.mean("perplexity") == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    size = sum(len(row["text"].encode()) for row in TEXTS)
    assert found.mean("bits_per_byte") == pytest.approx(nll / math.log(2) / size, rel=1e-5)
    assert found.counts["n_bytes"] == size


def test_more_context_needs_a_smaller_stride(lm):
    counts = [
        measure_perplexity(lm, TEXTS, places(TEXTS), TEXT, stride=stride).counts["n_windows"]
        for stride in (1, 4, 11)
    ]
    assert counts[0] > counts[1] > counts[2] > 3


def test_of_a_pair_the_completion_counts(lm):
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in successors(5)]
    found = measure_perplexity(lm, rows, places(rows), PAIR)
    for row, each in zip(rows, found.values["token_nll"], strict=True):
        prompt = lm.tokenizer(row["prompt"])["input_ids"]
        ids = [*prompt, *lm.tokenizer(row["completion"])["input_ids"], 1]
        assert each == pytest.approx(slowly(lm, ids, len(prompt), 12, 6) / 2, abs=1e-5)
    assert found.counts["n_tokens"] == 10
    assert found.counts["n_bytes"] == 15


def test_a_prompt_longer_than_the_window(lm):
    rows = [{"prompt": LONG, "completion": " n1 n2 n3 n4 n5 n6 n7 n8 n9 n1 n2 n3 n4 n5"}]
    found = measure_perplexity(lm, rows, places(rows), PAIR, stride=4)
    prompt = lm.tokenizer(LONG)["input_ids"]
    ids = [*prompt, *lm.tokenizer(rows[0]["completion"])["input_ids"], 1]
    assert found.values["token_nll"][0] == pytest.approx(slowly(lm, ids, len(prompt), 12, 4) / 15, abs=1e-5)


def test_a_text_begins_once(lm):
    """Where the tokenizer begins texts by itself, nothing more stands before them."""
    from tokenizers.processors import TemplateProcessing

    begun = make_tokenizer()
    begun.bos_token = "</s>"
    begun.backend_tokenizer.post_processor = TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 1)]
    )
    assert begun("n1")["input_ids"] == [1, 6]
    plain = measure_perplexity(lm, TEXTS, places(TEXTS), TEXT)
    found = measure_perplexity(LanguageModel(lm.model, begun, 12), TEXTS, places(TEXTS), TEXT)
    assert found.values["token_nll"].tolist() == plain.values["token_nll"].tolist()


@given(st.integers(1, 60), st.integers(1, 30), st.integers(2, 20), st.integers(1, 19))
def test_every_token_counts_once(length, first, window, stride):
    stride = min(stride, window - 1)
    spans = list(token_spans(length, first, window, stride))
    assert [place for _, at, end in spans for place in range(at, end)] == list(range(first, length))
    for number, (begin, at, end) in enumerate(spans):
        assert 0 <= begin < at
        assert end - begin <= window
        if number:
            assert at - begin >= min(at, window - stride)


def test_what_cannot_be_measured(lm):
    with pytest.raises(ConfigError, match="stride of 12 leaves no context in windows of 12"):
        measure_perplexity(lm, TEXTS, places(TEXTS), TEXT, stride=12)
    with pytest.raises(DataError, match="no row"):
        measure_perplexity(lm, [], [], TEXT)
    broken = make_model()
    with torch.no_grad():
        broken.lm_head.weight[3] = np.nan
    with pytest.raises(ModelError, match="3 of 3 rows is not a finite number") as caught:
        measure_perplexity(LanguageModel(broken, lm.tokenizer), TEXTS, places(TEXTS), TEXT)
    assert caught.value.where == "row 1"
