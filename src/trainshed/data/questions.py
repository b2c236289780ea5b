"""Questions about the built-in corpus, each with a short answer that its passage holds verbatim.

Kinds: ``keyword`` and ``topic`` ask for a name by words of the text, in any order; ``default``,
``argument`` and ``raises`` ask what a signature or a docstring says of a named symbol; ``cloze`` blanks a
word in a phrase of the passage. No question contains its answer or eight words in a row of its passage:
what `allowed` refuses is not asked.

Left out: questions that need more than one passage, and answers that no passage spells out.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.data.splits import stable_fraction
from trainshed.data.symbols import Symbol

#: longest run of words that a question may share with its passage is one less
RUN_WORDS = 8
KEYWORDS = 6
_FEWEST_KEYWORDS = 5
#: keywords are drawn from the rarest so many of the first so many content words
_KEYWORD_POOL, _RAREST = 40, 8
_DEFAULT_CHARACTERS = 15
_BEFORE_GAP, _AFTER_GAP = 4, 3
_MOST_SIBLINGS = 2
GAP = "___"
#: share of the possible questions of a kind that is asked, so that most questions are keyword questions
_SHARES = {"argument": 0.14, "cloze": 0.08}
_COMMON_DEFAULT_SHARE = 0.35
#: defaults that a generator guesses without reading; a symbol is asked for another one where it has it
_COMMON_DEFAULTS = frozenset({"None", "False", "True"})
_STOP_TEXT = """
the a an of to and or in is are be for with that this if on by as it not from at which will can may when its
into no but any all was has have use used using return returns also been than then there these those they
their such only other each some does more most must should would could you your one two how what where who
whose while without within about after before between both did done else etc get gets given give gives
itself just like make makes many much need needs new now see same set sets so too via very were whether
until unless upon because being here however either neither
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_EXCEPTION = r"[A-Z][A-Za-z]*(?:Error|Exception|Warning|Interrupt|Iteration|Exit|NotFound|Unavailable)"


def words(text: str) -> list[str]:
    """Return the lower-case words of ``text``; an underscore parts words, so ``read_only`` is two."""
    return re.findall(r"[^\W_]+", text.lower())


def contains_tokens(text: str, part: str) -> bool:
    """Return whether the tokens of ``part`` stand in a row in ``text``, whatever their case.

    Tokens are words and single marks, so ``none`` is not in ``NoneType`` but is in ``x=None``.
    """
    have, want = (re.findall(r"\w+|[^\w\s]", value.lower()) for value in (text, part))
    return any(have[i : i + len(want)] == want for i in range(len(have) - len(want) + 1))


def shares_run(question: str, passage: str, length: int = RUN_WORDS) -> bool:
    """Return whether ``length`` words in a row of ``passage`` stand in ``question``."""
    asked = words(question)
    if len(asked) < length:
        return False
    read = words(passage)
    runs = {tuple(read[i : i + length]) for i in range(len(read) - length + 1)}
    return any(tuple(asked[i : i + length]) in runs for i in range(len(asked) - length + 1))


def allowed(example: RagExample, passage: Passage) -> bool:
    """Return whether a question keeps the rules: only its passage holds the answer, and it copies no run."""
    return (
        bool(words(example.response))
        and example.response in passage.text
        and not contains_tokens(example.query, example.response)
        and not shares_run(example.query, passage.text)
    )


def passage_frequencies(texts: Iterable[str]) -> Counter[str]:
    """Return in how many of ``texts`` each word stands."""
    return Counter(word for text in texts for word in set(_plain_words(text)))


def symbol_questions(
    symbol: Symbol, passage: Passage, frequencies: Mapping[str, int]
) -> Iterator[RagExample]:
    """Yield the questions about one symbol, at most one a kind.

    Parameters
    ----------
    symbol
        What is asked about.
    passage
        What answers: the name with its signature on the first line, then the docstring.
    frequencies
        In how many passages each word stands: keywords are words that few have.
    """
    body = passage.text.partition("\n")[2]
    candidates = (
        ("keyword", _keyword(symbol.kind, passage, frequencies)),
        ("default", _default(symbol)),
        ("argument", _argument(symbol)),
        ("raises", _raises(symbol, body)),
        ("cloze", _cloze(passage)),
    )
    yield from _examples(candidates, passage)


def topic_questions(
    passage: Passage, frequencies: Mapping[str, int], *, siblings: int = 0
) -> Iterator[RagExample]:
    """Yield the questions about one passage of the language reference; its title is its first line.

    Parameters
    ----------
    passage
        What answers.
    frequencies
        In how many passages each word stands.
    siblings
        How many other passages have the same title. They spell out the same answer, so a title that too many
        share is not asked for.
    """
    topic = _keyword("topic", passage, frequencies) if siblings <= _MOST_SIBLINGS else None
    yield from _examples((("topic", topic), ("cloze", _cloze(passage))), passage)


def _examples(
    candidates: Sequence[tuple[str, tuple[str, str] | None]], passage: Passage
) -> Iterator[RagExample]:
    for kind, pair in candidates:
        if pair:
            query, response = pair
            example = RagExample(query, response, f"{kind}:{passage.id}", passage.id, kind)
            if stable_fraction(f"ask:{example.id}") < _share(kind, response) and allowed(example, passage):
                yield example


def _share(kind: str, response: str) -> float:
    if kind == "default" and response in _COMMON_DEFAULTS:
        return _COMMON_DEFAULT_SHARE
    return _SHARES.get(kind, 1.0)


def _plain_words(text: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Za-z]{3,}", text)]


def _content_words(name: str, body: str) -> list[str]:
    """Return the distinct content words of ``body``, in order, that are no part of ``name``."""
    lowered = name.lower()
    return [
        word for word in dict.fromkeys(_plain_words(body)) if word not in _STOP_WORDS and word not in lowered
    ]


def _keyword(what: str, passage: Passage, frequencies: Mapping[str, int]) -> tuple[str, str] | None:
    pool = _content_words(passage.title, passage.text.partition("\n")[2])[:_KEYWORD_POOL]
    rarest = sorted(pool, key=lambda word: frequencies[word])[:_RAREST]
    if len(rarest) < _FEWEST_KEYWORDS:
        return None
    chosen = random.Random(f"keyword:{passage.id}").sample(rarest, min(KEYWORDS, len(rarest)))
    return f"Which {what} concerns {', '.join(chosen)}?", passage.title


def _default(symbol: Symbol) -> tuple[str, str] | None:
    known = [
        (parameter.name, parameter.default)
        for parameter in symbol.parameters
        if parameter.default is not None
        and len(parameter.default) <= _DEFAULT_CHARACTERS
        and words(parameter.default)
    ]
    rare = [pair for pair in known if pair[1] not in _COMMON_DEFAULTS]
    choices = rare or known
    if not choices:
        return None
    name, default = random.Random(f"default:{symbol.name}").choice(choices)
    return f"What is the default of {name} in {symbol.name}?", default


def _argument(symbol: Symbol) -> tuple[str, str] | None:
    names = [parameter.name for parameter in symbol.parameters if parameter.positional]
    if not names:
        return None
    index = random.Random(f"argument:{symbol.name}").randrange(len(names))
    if index == 0:
        return f"What is the first argument of {symbol.name}?", names[0]
    return f"Which argument of {symbol.name} follows {names[index - 1]}?", names[index]


def _raises(symbol: Symbol, body: str) -> tuple[str, str] | None:
    mentioned = set(re.findall(rf"\b{_EXCEPTION}\b", body))
    said = re.search(
        rf"\b[Rr]ais(?:e|es|ed|ing)\b\W+(?:(?:an?|the|with)\W+)?({_EXCEPTION})\b", body
    ) or re.search(rf"\b({_EXCEPTION})\b(?: exception)? (?:is|will be|may be|can be) raised", body)
    if not said or len(mentioned) != 1:
        return None
    return f"Which exception can {symbol.name} raise?", said.group(1)


def _cloze(passage: Passage) -> tuple[str, str] | None:
    """Blank a content word that stands once in the passage, with the words around it, within one sentence."""
    name, _, body = passage.text.partition("\n")
    tokens = list(re.finditer(r"[^\W_]+", body))
    lowered = [token.group().lower() for token in tokens]
    candidates = []
    for i in range(_BEFORE_GAP, len(tokens) - _AFTER_GAP):
        word, first, last = tokens[i].group(), tokens[i - _BEFORE_GAP], tokens[i + _AFTER_GAP]
        phrase = body[first.start() : last.end()]
        if (
            re.fullmatch(r"[a-z]{4,}", word)
            and word not in _STOP_WORDS
            and word not in name.lower()
            and lowered.count(word) == 1
            and body[tokens[i].start() - 1] == " "
            and re.fullmatch(r"[\w ,'()\n-]+", phrase)
            and "\n\n" not in phrase
        ):
            candidates.append((first.start(), tokens[i].span(), last.end()))
    if not candidates:
        return None
    start, (gap_start, gap_end), end = random.Random(f"cloze:{passage.id}").choice(candidates)
    phrase = f"{body[start:gap_start]}{GAP}{body[gap_end:end]}"
    return f'Which word fills the gap: "{" ".join(phrase.split())}"?', body[gap_start:gap_end]
