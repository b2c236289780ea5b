"""The built-in corpus: passages and questions made from the Python installation itself.

A dataset that is always at hand, with no network: the standard library's docstrings (`symbols`) and the
language reference's topics (`topics`), cut to passages, with questions (`questions`) in three splits. It is a
function of the Python version and nothing else.

Splits go by group: a class with its methods, a topic's heading, or a lone function or module is in one split
as a whole. The split, the questions and their words depend on names only; ``seed`` decides which passages
stay when fewer are wanted. So no run's training question is another run's test question.
"""

import platform
from collections import Counter

from trainshed.data.corpus import Corpus, make_corpus, read_corpus, write_corpus
from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.data.questions import passage_frequencies, symbol_questions, topic_questions
from trainshed.data.splits import SPLITS, split_of, stable_fraction
from trainshed.data.symbols import Symbol, read_symbols
from trainshed.data.topics import read_topic_passages
from trainshed.errors import DataError, did_you_mean

__all__ = ["BUILDER_VERSION", "build_corpus", "builtin_split", "cut_text", "read_corpus", "write_corpus"]

#: changes whenever the same Python version would give another corpus
BUILDER_VERSION = 1
_DOCSTRING_CHARACTERS = 700


def build_corpus(*, max_passages: int | None = None, seed: int = 0) -> Corpus:
    """Build the corpus from this Python installation; seconds of work, and no described module is imported.

    Parameters
    ----------
    max_passages
        How many passages to keep; all of them when None.
    seed
        Decides which ones are kept. A smaller number keeps a subset of what a larger one keeps.

    Returns
    -------
    Corpus
        Passages sorted by id; the questions of a split in an order that mixes the kinds.

    Raises
    ------
    DataError
        When the standard library's sources or the topics are missing, or ``max_passages`` is below 1.
    """
    if max_passages is not None and max_passages < 1:
        raise DataError(
            f"max_passages is {max_passages}",
            where="data.max_passages",
            fix="a positive number, or null for all",
        )
    symbols = _symbol_passages()
    topics = read_topic_passages()
    # over every passage, not only those that are kept: a passage's questions are always the same
    frequencies = passage_frequencies(p.text for p in (*(passage for passage, _ in symbols), *topics))
    pairs = [(passage, list(symbol_questions(symbol, passage, frequencies))) for passage, symbol in symbols]
    titles = Counter(passage.title for passage in topics)
    for passage in topics:
        siblings = titles[passage.title] - 1
        pairs.append((passage, list(topic_questions(passage, frequencies, siblings=siblings))))
    pairs.sort(key=lambda pair: stable_fraction(f"keep:{seed}:{pair[0].id}"))
    pairs = sorted(pairs[:max_passages], key=lambda pair: pair[0].id)
    splits: dict[str, list[RagExample]] = {name: [] for name in SPLITS}
    for passage, examples in pairs:
        splits[split_of(str(passage.metadata["group"]))].extend(examples)
    for examples in splits.values():
        examples.sort(key=lambda example: stable_fraction(f"order:{example.id}"))
    facts = {
        "name": "builtin",
        "builder_version": BUILDER_VERSION,
        "python": platform.python_version(),
        "seed": seed,
        "max_passages": max_passages,
    }
    return make_corpus([passage for passage, _ in pairs], splits, facts)


def builtin_split(split: str) -> list[RagExample]:
    """Return the questions of one split of the whole corpus: ``train``, ``validation`` or ``test``."""
    if split not in SPLITS:
        raise DataError(f"the built-in corpus has no split {split!r}", fix=did_you_mean(split, SPLITS))
    return build_corpus().splits[split]


def _symbol_passages() -> list[tuple[Passage, Symbol]]:
    """Return a passage for every symbol; of those whose text is cut to the same, the first one's."""
    pairs: dict[str, tuple[Passage, Symbol]] = {}
    for symbol in read_symbols():
        body = cut_text(symbol.docstring, _DOCSTRING_CHARACTERS)
        passage = Passage(
            id=symbol.name,
            text=f"{symbol.name}{symbol.signature}\n{body}",
            title=symbol.name,
            doc_id=symbol.module,
            source=symbol.source or "builtins",
            metadata={
                "kind": symbol.kind,
                "package": symbol.module.partition(".")[0],
                "group": symbol.group,
            },
        )
        pairs.setdefault(" ".join(body.split()).casefold(), (passage, symbol))
    return list(pairs.values())


def cut_text(text: str, characters: int) -> str:
    """Return the start of ``text``, at most ``characters`` long, cut at the end of a line or a word."""
    text = text.strip()
    if len(text) <= characters:
        return text
    head = text[: characters + 1]
    line_end, word_end = head.rfind("\n"), head.rfind(" ")
    cut = line_end if line_end > characters // 2 else max(line_end, word_end)
    return head[: cut if cut > 0 else characters].rstrip()
