"""The built-in corpus, built once for all tests."""

import pytest

from trainshed.data.builtin import build_corpus
from trainshed.data.corpus import Corpus


@pytest.fixture(scope="session")
def builtin_corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="session")
def small_corpus() -> Corpus:
    return build_corpus(max_passages=300, seed=1)
