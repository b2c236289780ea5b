"""The built-in corpus, built once for all tests."""

import dataclasses

import pytest

from trainshed.data.builtin import build_corpus
from trainshed.data.corpus import Corpus


@pytest.fixture(scope="session")
def builtin_corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="session")
def small_corpus(builtin_corpus: Corpus) -> Corpus:
    corpus = build_corpus(max_passages=300)
    assert {passage.id for passage in corpus.passages} < {passage.id for passage in builtin_corpus.passages}
    return dataclasses.replace(corpus)
