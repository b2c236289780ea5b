"""Values of a language model's metrics: geometric means, and differences only where they mean something."""

import json

import numpy as np
import pytest

from tiny_language import make_model, make_tokenizer
from trainshed.errors import ConfigError
from trainshed.evaluation.language import LanguageModel, LanguageScores, row_ids
from trainshed.evaluation.report import comparison_rows
from trainshed.evaluation.significance import Resampling

RESAMPLING = Resampling(samples=400, seed=3)


def scores(nll, tokens, *, bytes_=None):
    nll, tokens = np.array(nll, dtype=float), np.array(tokens, dtype=float)
    bytes_ = tokens if bytes_ is None else np.array(bytes_, dtype=float)
    return LanguageScores(
        ids=tuple(f"r{i}" for i in range(len(nll))),
        values={"perplexity": np.exp(nll / tokens), "bits_per_byte": nll / np.log(2) / bytes_},
        weights={"perplexity": tokens, "bits_per_byte": bytes_},
        resampling=RESAMPLING,
    )


def test_perplexity_is_over_all_tokens():
    found = scores([2.0, 9.0], [4, 2])
    assert found.mean("perplexity") == pytest.approx(np.exp(11.0 / 6.0))
    interval = found.interval("perplexity")
    assert interval.mean == pytest.approx(np.exp(11.0 / 6.0))
    # with two rows, a resample is one of them twice or both
    assert (interval.low, interval.high) == pytest.approx((np.exp(0.5), np.exp(4.5)))


def test_an_interval_of_perplexity_is_that_of_the_mean_nll():
    chance = np.random.default_rng(0)
    nll, tokens = chance.gamma(3.0, 4.0, 50), chance.integers(2, 20, 50)
    found = scores(nll, tokens)
    plain = LanguageScores(
        found.ids,
        {"perplexity_": nll / tokens},
        weights={"perplexity_": tokens.astype(float)},
        resampling=RESAMPLING,
    )
    # the seed of an interval follows from the metric's name: other draws, the same distribution
    mean, other = found.interval("perplexity"), plain.interval("perplexity_")
    assert mean.mean == pytest.approx(np.exp(other.mean))
    assert np.log([mean.low, mean.high]) == pytest.approx([other.low, other.high], abs=0.1)


def test_a_difference_is_of_the_two_perplexities():
    chance = np.random.default_rng(1)
    tokens = chance.integers(5, 30, 40)
    before = tokens * chance.normal(3.0, 0.3, 40)
    after = before - tokens * 0.5
    found = scores(after, tokens).difference(scores(before, tokens), "perplexity")
    low = np.exp(after.sum() / tokens.sum()) - np.exp(before.sum() / tokens.sum())
    assert found.mean == pytest.approx(low)
    assert found.low < found.mean < found.high < 0
    assert found.p_value < 0.001
    # every row is better by half a nat, so that drawing rows changes little
    assert found.high - found.low < 0.3 * abs(found.mean)


def test_other_tokens_are_compared_by_bytes_alone():
    ours = scores([2.0, 3.0], [4, 4], bytes_=[8, 9])
    theirs = scores([2.5, 3.0], [2, 2], bytes_=[8, 9])
    assert ours.difference(theirs, "perplexity").n == 0
    assert ours.difference(theirs, "bits_per_byte").n == 2
    table = comparison_rows("t", {"before": theirs, "after": ours}, ["perplexity", "bits_per_byte"])
    assert [row[4] == "–" for row in table.rows] == [True, False]


def test_what_is_written_is_read_back():
    found = scores([2.0, 3.0], [4, 5])
    again = LanguageScores.from_json(json.loads(json.dumps(found.to_json())))
    assert again.interval("perplexity") == found.interval("perplexity")
    assert again.ids == found.ids


def test_ids_of_rows():
    assert row_ids([{"id": "a"}, {"id": 7}]) == ("a", "7")
    assert row_ids([{"id": "a"}, {"id": "a"}]) == ("row1", "row2")
    assert row_ids([{"id": "a"}, {}]) == ("row1", "row2")


def test_how_much_a_model_reads():
    model, tokenizer = make_model(), make_tokenizer()
    assert LanguageModel(model, tokenizer).limit == 64
    assert LanguageModel(model, tokenizer, 32).limit == 32
    with pytest.raises(ConfigError, match="reads 64 tokens, not 65"):
        _ = LanguageModel(model, tokenizer, 65).limit
