"""Reading exercises: text from which a small language model learns to use what stands before it.

A model that saw running text alone takes long to learn to repeat what a passage says, and without that it can
neither answer from a passage nor tell which passage helps. Repeated text teaches it within minutes (the
"induction heads" of arXiv 2209.11895, which form early on repeated sequences). The exercises are made from
passages alone, without any question or answer of the dataset: a piece of a passage twice, random words twice,
and a passage followed by its title, which stands in it. Left out: questions and answers.
"""

import random
from collections.abc import Iterator, Sequence

from trainshed.data.passages import Passage

TITLE_MARK = "\nTitle:"
#: words of a piece that is repeated
_PIECE_WORDS = 20


def pretraining_rows(
    passages: Sequence[Passage], *, repeats: int = 1, scrambles: int = 1, titles: int = 2, seed: int = 0
) -> list[dict[str, str]]:
    """Return rows to pre-train on: every passage's text, and exercises about it.

    Parameters
    ----------
    passages
        What to read.
    repeats
        For each passage that is long enough, how many pieces of it are to be repeated.
    scrambles
        For each passage, how many sequences of words from anywhere are to be repeated.
    titles
        For each passage, how often its title is asked for; only where the title stands in the text.
    seed
        Decides which words are chosen.

    Returns
    -------
    list[dict[str, str]]
        ``{"text": ...}`` and ``{"prompt": ..., "completion": ...}``, mixed.
    """
    vocabulary = sorted({word for passage in passages for word in passage.text.split()})
    rows: list[dict[str, str]] = []
    for passage in passages:
        chance = random.Random(f"{seed}:{passage.id}")
        rows.append({"text": passage.text})
        rows.extend(_repeated(_pieces(passage, repeats, chance)))
        rows.extend(_repeated(chance.choices(vocabulary, k=_PIECE_WORDS) for _ in range(scrambles)))
        if passage.title and passage.title in passage.text:
            exercise = {"prompt": passage.text + TITLE_MARK, "completion": f" {passage.title}"}
            rows.extend(dict(exercise) for _ in range(titles))
    random.Random(f"{seed}:order").shuffle(rows)
    return rows


def _pieces(passage: Passage, count: int, chance: random.Random) -> Iterator[list[str]]:
    words = passage.text.split()
    for _ in range(count if len(words) >= _PIECE_WORDS else 0):
        start = chance.randrange(len(words) - _PIECE_WORDS + 1)
        yield words[start : start + _PIECE_WORDS]


def _repeated(pieces: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    for words in pieces:
        text = " ".join(words)
        yield {"prompt": text, "completion": f" {text}"}
