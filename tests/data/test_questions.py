"""The rules that questions keep, and each kind of question by example."""

from collections import Counter

import pytest

from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.data.questions import (
    GAP,
    allowed,
    contains_tokens,
    passage_frequencies,
    shares_run,
    symbol_questions,
    topic_questions,
    words,
)
from trainshed.data.symbols import Parameter, Symbol

DOCSTRING = """Tell hungry sisters where distant flowers bloom today.

Raises ValueError when the angle is negative. Old dancers prefer slow music."""


def symbols(count: int) -> list[Symbol]:
    parameters = (Parameter("angle"), Parameter("distance", "2.5"), Parameter("quiet", "False"))
    return [
        Symbol(
            f"bees.dance{n}",
            "function",
            "g",
            DOCSTRING,
            "bees",
            "bees.py",
            "(angle, distance=2.5)",
            parameters,
        )
        for n in range(count)
    ]


def passage_of(symbol: Symbol) -> Passage:
    text = f"{symbol.name}{symbol.signature}\n{symbol.docstring}"
    return Passage(symbol.name, text, title=symbol.name)


@pytest.fixture(scope="module")
def questions() -> dict[str, list[RagExample]]:
    found: dict[str, list[RagExample]] = {}
    for symbol in symbols(60):
        for example in symbol_questions(symbol, passage_of(symbol), Counter()):
            found.setdefault(example.kind, []).append(example)
    return found


def test_words_and_runs():
    assert words("read_only, Ünicode-2 x=None") == ["read", "only", "ünicode", "2", "x", "none"]
    passage = "one two three four five six seven eight nine"
    assert shares_run("so: Two three-four five six seven eight NINE?", passage)
    assert not shares_run("two three four five six seven eight", passage)
    assert not shares_run("two three four x five six seven eight nine", passage)


@pytest.mark.parametrize(
    ("text", "part", "expected"),
    [
        ("x in NoneType", "None", False),
        ("is it none?", "None", True),
        ("call json.dumps now", "json.dumps", True),
        ("call json dumps", "json.dumps", False),
        ("the 'utf-8' codec", "'UTF-8'", True),
        ("-10", "1", False),
        ("", "a", False),
    ],
)
def test_tokens_in_a_row(text: str, part: str, expected: bool):
    assert contains_tokens(text, part) is expected


def test_what_breaks_a_rule_is_refused():
    passage = Passage("p", "bees.dance(angle=1)\nTell hungry sisters where distant flowers bloom today.")
    good = RagExample("What is the default of angle in bees.dance?", "1")
    assert allowed(good, passage)
    assert not allowed(RagExample("What is the default of angle, 1 or 2?", "1"), passage)
    assert not allowed(RagExample("What is the default of angle?", "7"), passage)
    assert not allowed(RagExample("What is the default of angle?", "="), passage)
    copied = "Who: tell hungry sisters where distant flowers bloom today?"
    assert not allowed(RagExample(copied, "1"), passage)


def test_keyword_questions_draw_on_rare_content_words():
    (symbol,) = symbols(1)
    frequencies = Counter({"hungry": 9, "sisters": 9, "tell": 9, "music": 9})
    keyword = next(
        e for e in symbol_questions(symbol, passage_of(symbol), frequencies) if e.kind == "keyword"
    )
    asked = set(words(keyword.query)) - {"which", "function", "concerns"}
    assert len(asked) == 6
    assert not asked & {"hungry", "sisters", "tell", "music", "the", "where", "bees", "dance0"}
    assert asked <= set(words(DOCSTRING))
    assert keyword == RagExample(
        keyword.query, "bees.dance0", "keyword:bees.dance0", "bees.dance0", "keyword"
    )


def test_every_kind_is_asked_with_its_answer(questions):
    assert set(questions) == {"keyword", "default", "argument", "raises", "cloze"}
    assert len(questions["keyword"]) == 60
    # a default that is rare is asked for rather than False
    assert {(e.query.split(" in ")[0], e.response) for e in questions["default"]} == {
        ("What is the default of distance", "2.5")
    }
    assert {e.response for e in questions["raises"]} == {"ValueError"}
    for example in questions["argument"]:
        follower = {"angle": "distance", "distance": "quiet"}
        previous = example.query.removesuffix("?").rpartition(" follows ")[2]
        assert example.response == follower.get(previous, "angle")
        assert ("first argument" in example.query) == (example.response == "angle")
    for example in questions["cloze"]:
        phrase = example.query.split('"')[1]
        assert phrase.replace(GAP, example.response) in " ".join(DOCSTRING.split())


def test_an_argument_that_the_signature_does_not_show_is_not_asked(questions):
    assert "quiet" not in {example.response for example in questions["argument"]}


def test_a_topic_is_asked_by_its_words():
    passage = Passage("topic:bee#0", f"Dancing\n{DOCSTRING}", title="Dancing")
    kinds = {example.kind: example for example in topic_questions(passage, Counter())}
    assert kinds["topic"].response == "Dancing"
    assert kinds["topic"].query.startswith("Which topic concerns ")
    # where many passages have the title, each of them would answer
    assert "topic" not in {e.kind for e in topic_questions(passage, Counter(), siblings=3)}


def test_frequencies_count_passages_not_occurrences():
    assert passage_frequencies(["bee bee wasp", "Bee"]) == {"bee": 2, "wasp": 1}
