"""Reading exercises: text from which a small language model learns to use what stands before it.

A model that only ever saw running text cannot read an answer out of a passage. These exercises are made from
passages alone, without any question or answer of the dataset: the passage, then its title (which stands in
it), or the start of a quotation from it that is to be continued. Left out: questions and answers.
"""

import random
from collections.abc import Iterator, Sequence

from trainshed.data.passages import Passage

TITLE_MARK, QUOTE_MARK = "\nTitle:", "\nQuote:"
#: words of a quotation: given first, then asked for
_GIVEN_WORDS, _ASKED_WORDS = 2, (3, 8)


def pretraining_rows(
    passages: Sequence[Passage], *, titles: int = 1, quotes: int = 1, seed: int = 0
) -> list[dict[str, str]]:
    """Return rows to pre-train on: every passage's text, and exercises about it.

    Parameters
    ----------
    passages
        What to read.
    titles
        For each passage, how often its title is asked for; only where the title stands in the text.
    quotes
        For each passage, how many quotations are to be continued; only in texts that are long enough.
    seed
        Decides which words are quoted.

    Returns
    -------
    list[dict[str, str]]
        ``{"text": ...}`` and ``{"prompt": ..., "completion": ...}``, mixed.
    """
    rows: list[dict[str, str]] = []
    for passage in passages:
        rows.append({"text": passage.text})
        if passage.title and passage.title in passage.text:
            exercise = {"prompt": passage.text + TITLE_MARK, "completion": f" {passage.title}"}
            rows.extend(dict(exercise) for _ in range(titles))
        rows.extend(_quotes(passage, quotes, random.Random(f"{seed}:{passage.id}")))
    random.Random(f"{seed}:order").shuffle(rows)
    return rows


def _quotes(passage: Passage, count: int, chance: random.Random) -> Iterator[dict[str, str]]:
    words = passage.text.split()
    shortest = _GIVEN_WORDS + _ASKED_WORDS[0]
    if len(words) < 2 * shortest:
        return
    for _ in range(count):
        asked = chance.randint(*_ASKED_WORDS)
        start = chance.randrange(max(1, len(words) - _GIVEN_WORDS - asked))
        given = words[start : start + _GIVEN_WORDS]
        answer = words[start + _GIVEN_WORDS : start + _GIVEN_WORDS + asked]
        yield {
            "prompt": f"{passage.text}{QUOTE_MARK} {' '.join(given)}",
            "completion": f" {' '.join(answer)}",
        }
