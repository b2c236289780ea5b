"""A corpus as a directory, and what else is made of it."""

import json
from pathlib import Path

import pytest

from trainshed.data.corpus import Corpus, make_corpus, read_corpus, write_corpus
from trainshed.data.examples import RagExample, is_corpus, load_examples
from trainshed.data.passages import Passage
from trainshed.data.rows import known_splits
from trainshed.errors import DataError


@pytest.fixture
def written(tmp_path: Path, small_corpus: Corpus) -> Path:
    write_corpus(small_corpus, tmp_path / "corpus")
    return tmp_path / "corpus"


def test_a_corpus_is_read_as_it_was_written(written: Path, small_corpus: Corpus):
    assert read_corpus(written) == small_corpus
    assert sorted(path.name for path in written.iterdir()) == [
        "manifest.json",
        "passages.jsonl",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]


def test_writing_again_replaces_all_of_it(written: Path):
    corpus = make_corpus([Passage("p", "text")], {"train": [RagExample("q", "a", "1", "p")], "test": []}, {})
    write_corpus(corpus, written)
    assert read_corpus(written) == corpus
    assert not (written / "test.jsonl").exists()


def test_loaders_know_the_directory(written: Path, small_corpus: Corpus):
    assert is_corpus(written)
    assert not is_corpus(written.parent)
    assert {"train", "validation", "test"} <= set(known_splits(written))
    # a mapping of the dataset that the corpus was made of does not concern it
    loaded = load_examples(str(written), split="test", columns={"query": "question"})
    assert loaded == small_corpus.splits["test"]


@pytest.mark.parametrize("name", ["passages.jsonl", "train.jsonl", "test.jsonl"])
def test_a_damaged_file_is_named(written: Path, name: str):
    path = written / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(DataError, match="damaged: the file is not the one written") as caught:
        read_corpus(written)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(DataError, match="damaged: the file is missing"):
        read_corpus(written)


def test_a_damaged_manifest_is_named(written: Path):
    path = written / "manifest.json"
    manifest = json.loads(path.read_text())
    for content in (
        "{",
        "[]",
        json.dumps({**manifest, "files": {}}),
        json.dumps({"files": manifest["files"]}),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match="manifest of the corpus is damaged") as caught:
            read_corpus(written)
        assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(DataError, match="holds no corpus"):
        read_corpus(written)


def test_every_passage_is_text_to_pretrain_on_and_no_question_is(small_corpus: Corpus):
    texts = small_corpus.pretraining_texts()
    assert len(texts) == len(small_corpus.passages)
    joined = "\n".join(texts)
    assert not [e for examples in small_corpus.splits.values() for e in examples if e.query in joined]


def test_labelled_text_does_not_name_its_class(builtin_corpus: Corpus):
    by_split = {split: builtin_corpus.labelled(split) for split in builtin_corpus.splits}
    assert sum(map(len, by_split.values())) == len(builtin_corpus.passages)
    assert {item.label for item in by_split["test"]} == {
        "class",
        "function",
        "method",
        "module",
        "property",
        "topic",
    }
    texts = [{item.text for item in items} for items in by_split.values()]
    assert not texts[0] & texts[2]
    assert len({item.label for item in builtin_corpus.labelled("train", "package")}) > 50
    with pytest.raises(DataError, match="no split 'all'"):
        builtin_corpus.labelled("all")


def test_a_corpus_without_labels_says_so():
    corpus = make_corpus([Passage("p", "text")], {}, {})
    with pytest.raises(DataError, match="no 'kind' to classify by"):
        corpus.labelled("train")


def test_preferences_put_the_right_answer_before_anothers(small_corpus: Corpus):
    pairs = small_corpus.preferences("train")
    answers = {example.query: example for example in small_corpus.splits["train"]}
    responses = {example.response for example in small_corpus.splits["train"]}
    assert len(pairs) > 0.9 * len(answers)
    for pair in pairs:
        assert pair.chosen == answers[pair.prompt].response
        assert pair.rejected in responses - {pair.chosen}
    assert pairs == small_corpus.preferences("train")


def test_an_accepted_answer_is_never_the_worse_one():
    examples = [
        RagExample("one?", "a", "1", answers=("a", "b")),
        RagExample("two?", "b", "2"),
        RagExample("three?", "c", "3", kind="other"),
    ]
    pairs = make_corpus([], {"train": examples}, {}).preferences("train")
    assert [(pair.prompt, pair.rejected) for pair in pairs] == [("two?", "a")]
