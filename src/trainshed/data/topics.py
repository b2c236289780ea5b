"""The language reference's topics (`pydoc_data.topics`), cut into passages by heading and paragraph.

Topics overlap: ``specialnames`` holds the whole text of ``customization``. Each paragraph is kept once, in
the shortest topic that has it. Left out: links between topics, and the topics that C builds may lack.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trainshed.data.passages import Passage
from trainshed.errors import DataError

#: longest body of a passage in characters
BODY_CHARACTERS = 700
_MINIMUM_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph of a topic (or a part of a long one): its span and the heading above it."""

    heading: str
    start: int
    end: int


def read_topic_passages() -> list[Passage]:
    """Return the passages of every topic, sorted by id; ``title`` is the heading above them.

    Raises
    ------
    DataError
        When this Python installation has no `pydoc_data`.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "the language reference's topics (pydoc_data) are missing from this Python installation",
            fix="use a Python installation that is complete",
        ) from error
    passages: list[Passage] = []
    seen: set[str] = set()
    for topic, text in sorted(topics.items(), key=lambda item: (len(item[1]), item[0])):
        passages.extend(topic_passages(topic, text, seen))
    return sorted(passages, key=lambda passage: (passage.doc_id, passage.chunk_id))


def topic_passages(topic: str, text: str, seen: set[str]) -> Iterator[Passage]:
    """Yield the passages of one topic; their bodies are spans of ``text``.

    Parameters
    ----------
    topic
        Key of the topic, such as ``assert``.
    text
        The whole topic.
    seen
        Paragraphs of other topics, which are left out here; those of this one are added.
    """
    spans: list[_Block] = []
    for block in _blocks(text):
        paragraph = " ".join(text[block.start : block.end].split())
        if paragraph in seen:
            continue
        seen.add(paragraph)
        last = spans[-1] if spans else None
        # a span grows only over white space: what lies between two of its blocks must not have been left out
        if (
            last
            and last.heading == block.heading
            and not text[last.end : block.start].strip()
            and block.end - last.start <= BODY_CHARACTERS
        ):
            spans[-1] = _Block(block.heading, last.start, block.end)
        else:
            spans.append(block)
    long_enough = [span for span in spans if span.end - span.start >= _MINIMUM_CHARACTERS]
    for number, span in enumerate(long_enough):
        yield Passage(
            id=f"topic:{topic}#{number}",
            text=f"{span.heading}\n{text[span.start : span.end]}",
            title=span.heading,
            doc_id=f"topic:{topic}",
            chunk_id=number,
            start=span.start,
            end=span.end,
            source="pydoc_data/topics.py",
            metadata={"kind": "topic", "package": "language reference", "group": f"topic:{span.heading}"},
        )


def _blocks(text: str) -> Iterator[_Block]:
    """Yield paragraphs under their headings, cut at line ends where longer than `BODY_CHARACTERS`."""
    heading = ""
    for match in re.finditer(r"(?:[^\n]+\n?)+", text):
        start, lines = match.start(), match.group().splitlines(keepends=True)
        if len(lines) > 1 and re.fullmatch(r"([*=\-~^\"])\1{2,}", lines[1].strip()):
            heading = lines[0].strip()
            start += len(lines[0]) + len(lines[1])
            lines = lines[2:]
        end = start
        for line in lines:
            if end > start and end + len(line) - start > BODY_CHARACTERS:
                yield _Block(heading, start, end)
                start = end
            end += len(line)
        if text[start:end].strip():
            yield _Block(heading, start, start + len(text[start:end].rstrip()))
