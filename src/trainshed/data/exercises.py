"""Reading exercises: text from which a small language model learns to answer from what stands before it.

A model that saw running text alone can neither answer from a passage nor tell which passage helps. The
exercises are made from passages alone, without any question or answer of the dataset: a passage, a question
that names some of its words, and its title, which stands in it and is to be read off. They look as
`rag.prompts.PASSAGE_FIRST` makes prompts look. Left out: questions and answers.
"""

import random
import re
from collections.abc import Collection, Iterator, Sequence

from trainshed.data.passages import Passage

_WORD = re.compile(r"[A-Za-z]{4,}")
#: a small model's rows are short, and what does not fit would be cut at the title
_MOST_CHARACTERS = 450
#: words of the passage that stand in an exercise
_FEWEST, _MOST = 3, 6


def pretraining_rows(
    passages: Sequence[Passage], *, exercises: int = 4, without: Collection[str] = (), seed: int = 0
) -> list[dict[str, str]]:
    """Return rows to pre-train on: exercises, or the text alone of a passage that gives none.

    Parameters
    ----------
    passages
        What to read.
    exercises
        How many each passage gives. It gives none when its title does not stand in its text, or when it has
        too few words besides.
    without
        Ids of passages to leave out, such as those that held-out questions are about.
    seed
        Decides which words are chosen.

    Returns
    -------
    list[dict[str, str]]
        ``{"prompt": ..., "completion": ...}`` and ``{"text": ...}``, mixed.
    """
    rows: list[dict[str, str]] = []
    for passage in passages:
        if passage.id in without:
            continue
        made = list(_exercises(passage, exercises, random.Random(f"{seed}:{passage.id}")))
        rows.extend(made or [{"text": passage.text}])
    random.Random(f"{seed}:order").shuffle(rows)
    return rows


def _start(text: str) -> str:
    """Return the start of a text, cut between words."""
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS].rpartition(" ")[0]


def _exercises(passage: Passage, count: int, chance: random.Random) -> Iterator[dict[str, str]]:
    title, text = passage.title, _start(passage.text)
    if not title or title not in text:
        return
    words = list(dict.fromkeys(word.lower() for word in _WORD.findall(text.replace(title, " "))))
    if len(words) <= _FEWEST:
        return
    for _ in range(count):
        chosen = chance.sample(words, min(chance.randint(_FEWEST, _MOST), len(words)))
        question = f"Which text has the words {', '.join(chosen)}?"
        yield {"prompt": f"{text}\nQuestion: {question}\nAnswer:", "completion": f" {title}"}
