"""Passages for the tests of stores."""

import pytest

from trainshed.data.passages import Passage


@pytest.fixture
def passages_of():
    def make(count: int, *, first: int = 0) -> list[Passage]:
        return [
            Passage(
                id=f"p{number}",
                text=f"the text of passage number {number}",
                title=f"title {number % 4}",
                doc_id=f"d{number % 3}",
                source=f"file{number % 2}.txt",
                metadata={"year": 2000 + number % 5, "lang": "en" if number % 2 else "de"},
            )
            for number in range(first, first + count)
        ]

    return make
