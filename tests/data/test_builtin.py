"""The built-in corpus: what every question and passage of it keeps to, and that it is always the same."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import trainshed
from trainshed.data.builtin import build_corpus, cut_text
from trainshed.data.corpus import Corpus
from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.data.questions import contains_tokens, shares_run, words
from trainshed.data.splits import stable_fraction
from trainshed.data.symbols import stdlib_directory
from trainshed.errors import DataError


def all_questions(corpus: Corpus) -> list[RagExample]:
    return [example for examples in corpus.splits.values() for example in examples]


@pytest.fixture(scope="module")
def by_id(builtin_corpus) -> dict[str, Passage]:
    return {passage.id: passage for passage in builtin_corpus.passages}


def test_there_is_enough_of_it(builtin_corpus):
    assert 4000 <= len(builtin_corpus.passages) <= 6000
    kinds = Counter(example.kind for example in all_questions(builtin_corpus))
    assert kinds.total() >= 3500
    assert set(kinds) == {"keyword", "topic", "default", "argument", "raises", "cloze"}
    assert 0.5 <= kinds["keyword"] / kinds.total() <= 0.7
    assert min(kinds.values()) >= 100


def test_it_has_public_names_of_the_standard_library_only(builtin_corpus, by_id):
    assert {"json.dumps", "builtins.str.split", "collections.abc.Mapping.get", "heapq.nsmallest"} <= set(
        by_id
    )
    names = [name for name in by_id if not name.startswith("topic:")]
    assert len(names) > 3000
    assert not [
        name for name in names if "._" in name or name.startswith(("_", "test.", "idlelib.", "tkinter."))
    ]
    sources = {passage.source for passage in builtin_corpus.passages} - {"builtins"}
    assert all((stdlib_directory() / source).is_file() for source in sources)


def test_ids_are_unique_and_lead_to_passages(builtin_corpus, by_id):
    questions = all_questions(builtin_corpus)
    assert len(by_id) == len(builtin_corpus.passages)
    assert len({example.id for example in questions}) == len(questions)
    assert {example.passage_id for example in questions} <= set(by_id)


def test_no_question_contains_its_answer(builtin_corpus):
    assert not [e for e in all_questions(builtin_corpus) if contains_tokens(e.query, e.response)]


def test_no_question_copies_eight_words_of_its_passage(builtin_corpus, by_id):
    questions = all_questions(builtin_corpus)
    assert not [e for e in questions if shares_run(e.query, by_id[str(e.passage_id)].text)]
    # the check itself: seven words in a row do occur, so it is not an empty one
    assert any(shares_run(e.query, by_id[str(e.passage_id)].text, 4) for e in questions)


def test_every_answer_is_short_and_stands_in_its_passage(builtin_corpus, by_id):
    for example in all_questions(builtin_corpus):
        assert example.response in by_id[str(example.passage_id)].text
        assert words(example.response)
        assert len(example.response) <= 120


def test_keyword_questions_have_no_word_of_the_name(builtin_corpus):
    for example in all_questions(builtin_corpus):
        if example.kind in ("keyword", "topic"):
            listed = example.query.partition(" concerns ")[2].rstrip("?").split(", ")
            assert 5 <= len(set(listed)) == len(listed) <= 6
            assert not [word for word in listed if word in example.response.lower()]


def test_splits_share_neither_symbol_nor_class_nor_docstring(builtin_corpus, by_id):
    groups, bodies = {}, {}
    for name, examples in builtin_corpus.splits.items():
        for example in examples:
            passage = by_id[str(example.passage_id)]
            assert groups.setdefault(passage.metadata["group"], name) == name
            assert bodies.setdefault(" ".join(passage.text.partition("\n")[2].split()), name) == name
    methods = [p for p in by_id.values() if p.metadata["kind"] == "method"]
    assert all(p.metadata["group"] == p.id.rpartition(".")[0] for p in methods)
    shares = {name: len(examples) for name, examples in builtin_corpus.splits.items()}
    total = sum(shares.values())
    assert 0.66 <= shares["train"] / total <= 0.74
    assert 0.08 <= shares["validation"] / total <= 0.13
    assert 0.16 <= shares["test"] / total <= 0.24


def test_passages_are_bounded_and_start_with_their_name(builtin_corpus):
    for passage in builtin_corpus.passages:
        head, _, body = passage.text.partition("\n")
        assert head.startswith(passage.title)
        assert 0 < len(body) <= 700
        assert len(head) <= len(passage.title) + 215


def test_the_first_questions_of_a_split_mix_the_kinds(builtin_corpus):
    for examples in builtin_corpus.splits.values():
        assert len({example.kind for example in examples[:100]}) >= 4


def test_a_fresh_process_with_another_hash_seed_makes_the_same(builtin_corpus):
    script = (
        "import sys, json; from trainshed.data.builtin import build_corpus;"
        "manifest = build_corpus().manifest;"
        "heavy = {'torch', 'numpy', 'datasets', 'transformers', 'imaplib', 'wsgiref'} & set(sys.modules);"
        "assert not heavy, heavy; print(json.dumps(manifest))"
    )
    source = str(Path(trainshed.__file__).parent.parent)
    environment = {**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": source}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == builtin_corpus.manifest


def test_the_manifest_says_what_it_was_made_of(builtin_corpus):
    manifest = builtin_corpus.manifest
    assert manifest["python"] == platform.python_version()
    assert manifest["passages"]["total"] == len(builtin_corpus.passages)
    for name, examples in builtin_corpus.splits.items():
        counts = Counter(example.kind for example in examples)
        assert manifest["questions"][name] == {"total": len(examples), **counts}


def test_fewer_passages_are_a_subset_with_the_same_questions(builtin_corpus, small_corpus):
    assert len(small_corpus.passages) == 300
    kept = {passage.id for passage in small_corpus.passages}
    assert [p for p in builtin_corpus.passages if p.id in kept] == small_corpus.passages
    for name, examples in builtin_corpus.splits.items():
        assert [e for e in examples if e.passage_id in kept] == small_corpus.splits[name]


def test_the_seed_decides_which_passages_are_kept(builtin_corpus, small_corpus):
    def chosen(seed: int) -> set[str]:
        ids = [passage.id for passage in builtin_corpus.passages]
        return set(sorted(ids, key=lambda name: stable_fraction(f"keep:{seed}:{name}"))[:300])

    assert small_corpus.manifest["seed"] == 1
    assert {passage.id for passage in small_corpus.passages} == chosen(1) != chosen(0)


def test_no_passage_at_all_is_refused():
    with pytest.raises(DataError, match="max_passages is 0"):
        build_corpus(max_passages=0)


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("short", 10, "short"),
        ("one two three", 9, "one two"),
        ("first line\nsecond line", 18, "first line"),
        ("a\n" + "b" * 30, 20, "a"),
        ("x" * 30, 20, "x" * 20),
        ("one two", 7, "one two"),
    ],
)
def test_text_is_cut_at_lines_or_words(text: str, size: int, expected: str):
    assert cut_text(text, size) == expected
