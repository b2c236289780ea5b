"""Training rows of every format made from a corpus: its questions, answers and passages.

So ``data.dataset_name: builtin``, or a corpus that a stage prepared, serves every language-model algorithm
without any network. The worse answer of a preference is the answer to another question of the same kind and
split. The splits are those of the corpus, so in the built-in one no symbol is in two of them; a question that
an earlier split asks in the same words does not come again. Left out: making the corpus (`builtin`,
`assembling`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainshed.data.corpus import Corpus
from trainshed.data.examples import RagExample
from trainshed.data.splits import SPLITS, split_groups, split_of
from trainshed.errors import DataError, did_you_mean

Row = dict[str, Any]

#: how a question stands in a plain prompt, as the prompts of a generator without retrieval look
QUESTION = "Question: {query}\nAnswer:"


def liked_format(accepts: Sequence[str]) -> str:
    """Return which of the formats that an algorithm takes is made of a corpus.

    The best one for the algorithm, but plain questions and answers rather than conversations: a tokenizer
    that was trained here has no chat template.
    """
    plain = [name for name in accepts if name != "messages"]
    questions = [name for name in plain if name != "text"] if "messages" in accepts else plain
    return (questions or plain or list(accepts) or ["prompt-completion"])[0]


def corpus_rows(corpus: Corpus, name: str, split: str) -> list[tuple[str, Row]]:
    """Return the rows of one split in a format, each with its place.

    Parameters
    ----------
    corpus
        Of questions in splits, and passages.
    name
        ``text``: the passages that no other split asks about. ``prompt-completion`` and ``messages``:
        questions with their answers. ``preference``: a question, its answer, and the answer to another one
        of its kind. ``unpaired``: both of these answers, each with its label, the one after the other.
        ``prompt``: questions with the column ``answer``, and ``answers`` with all that are accepted.
    split
        ``train``, ``validation`` or ``test``.

    Raises
    ------
    DataError
        When the corpus has no such split.
    """
    if split not in SPLITS or (name != "text" and split not in corpus.splits):
        known = SPLITS if name == "text" else tuple(corpus.splits)
        raise DataError(f"the corpus has no split {split!r}", fix=did_you_mean(split, known))
    rows = list(_MAKERS[name](corpus, split))
    if not rows:
        raise DataError(
            f"the corpus gives no rows of the format {name} for the split {split}",
            where="data.dataset_name",
            fix="a larger data.max_passages, or another dataset",
        )
    label = corpus.manifest.get("name") or "the corpus"
    return [(f"{label}, {split}, {identity}", row) for identity, row in rows]


def has_rows(corpus: Corpus, name: str, split: str) -> bool:
    """Return whether a split of a corpus has anything to make rows of."""
    return split in SPLITS and (name == "text" or bool(corpus.splits.get(split)))


def _texts(corpus: Corpus, split: str) -> Iterator[tuple[str, Row]]:
    groups = {p.id: str(p.metadata.get("group") or p.doc_id or p.id) for p in corpus.passages}
    if all("group" in passage.metadata for passage in corpus.passages):
        chosen = {group: split_of(group) for group in groups.values()}
    else:
        sizes: dict[str, int] = {}
        for group in groups.values():
            sizes[group] = sizes.get(group, 0) + 1
        chosen = split_groups(sizes)
    for passage in corpus.passages:
        if chosen[groups[passage.id]] == split:
            yield passage.id, {"text": passage.text}


def _questions(corpus: Corpus, split: str) -> Iterator[RagExample]:
    """Yield the questions of a split that no earlier one asks: two symbols may be asked for alike."""
    asked = {
        _folded(example.query)
        for name in SPLITS[: SPLITS.index(split)]
        for example in corpus.splits.get(name, [])
    }
    for example in corpus.splits[split]:
        if _folded(example.query) not in asked:
            yield example


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _pairs(corpus: Corpus, split: str) -> Iterator[tuple[str, Row]]:
    for example in _questions(corpus, split):
        yield (
            example.id,
            {"prompt": QUESTION.format(query=example.query), "completion": f" {example.response}"},
        )


def _messages(corpus: Corpus, split: str) -> Iterator[tuple[str, Row]]:
    for example in _questions(corpus, split):
        turns = (("user", example.query), ("assistant", example.response))
        yield example.id, {"messages": [{"role": role, "content": text} for role, text in turns]}


def _preferences(corpus: Corpus, split: str) -> Iterator[tuple[str, Row]]:
    kept = {example.query for example in _questions(corpus, split)}
    for number, pair in enumerate(corpus.preferences(split), start=1):
        if pair.prompt not in kept:
            continue
        yield (
            f"pair {number}",
            {
                "prompt": QUESTION.format(query=pair.prompt),
                "chosen": f" {pair.chosen}",
                "rejected": f" {pair.rejected}",
            },
        )


def _unpaired(corpus: Corpus, split: str) -> Iterator[tuple[str, Row]]:
    for place, row in _preferences(corpus, split):
        for column, label in (("chosen", True), ("rejected", False)):
            yield place, {"prompt": row["prompt"], "completion": row[column], "label": label}


def _prompts(corpus: Corpus, split: str) -> Iterator[tuple[str, Row]]:
    for example in _questions(corpus, split):
        prompt = QUESTION.format(query=example.query)
        yield example.id, {"prompt": prompt, "answer": example.response, "answers": list(example.accepted)}


_MAKERS: Mapping[str, Callable[[Corpus, str], Iterator[tuple[str, Row]]]] = {
    "text": _texts,
    "prompt-completion": _pairs,
    "messages": _messages,
    "preference": _preferences,
    "unpaired": _unpaired,
    "prompt": _prompts,
}
