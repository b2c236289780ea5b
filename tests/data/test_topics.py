"""Cutting the language reference's topics."""

from pydoc_data.topics import topics

from trainshed.data.topics import BODY_CHARACTERS, read_topic_passages, topic_passages

LONG = "word " * 30
TEXT = f"""The "bee" statement
*******************

First {LONG}

Second {LONG}


Details
=======

Third {LONG}

Tiny.

Fourth {LONG}
"""


def test_passages_are_spans_under_their_headings():
    passages = list(topic_passages("bee", TEXT, set()))
    assert [(p.id, p.title, p.text.split("\n", 1)[1][:5]) for p in passages] == [
        ("topic:bee#0", 'The "bee" statement', "First"),
        ("topic:bee#1", "Details", "Third"),
    ]
    for passage in passages:
        assert passage.text == f"{passage.title}\n{TEXT[passage.start : passage.end]}"
    assert "Second" in passages[0].text
    assert "Fourth" in passages[1].text


def test_a_paragraph_that_another_topic_has_is_left_out():
    seen = {" ".join(f"Second {LONG}".split())}
    bodies = [p.text for p in topic_passages("bee", TEXT, seen)]
    assert not any("Second" in body for body in bodies)
    assert " ".join(f"First {LONG}".split()) in seen


def test_a_long_paragraph_is_cut_at_line_ends():
    text = "T\n***\n\n" + "\n".join(f"line {number} of many in a paragraph" for number in range(100))
    passages = list(topic_passages("t", text, set()))
    assert len(passages) > 3
    assert all(passage.end - passage.start <= BODY_CHARACTERS for passage in passages)
    assert "\n".join(text[p.start : p.end].strip("\n") for p in passages) == text.partition("\n\n")[2]


def test_the_topics_of_this_python():
    passages = read_topic_passages()
    assert len(passages) > 500
    assert len({passage.id for passage in passages}) == len(passages)
    bodies = [" ".join(passage.text.partition("\n")[2].split()) for passage in passages]
    assert len(set(bodies)) == len(bodies)
    for passage in passages:
        text = topics[passage.doc_id.removeprefix("topic:")]
        assert passage.text == f"{passage.title}\n{text[passage.start : passage.end]}"
        assert passage.title.strip()
