"""Corpora from one's own documents and questions."""

from pathlib import Path

import pytest

from trainshed.data.assembling import Sources, assemble_corpus
from trainshed.data.corpus import Corpus
from trainshed.data.jsonl import write_jsonl
from trainshed.errors import DataError
from trainshed.models.tokenizers import train_byte_bpe


def no_tokenizer():
    raise AssertionError("there is nothing to cut")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "passages.jsonl"
    write_jsonl(path, [{"pid": f"p{n}", "text": f"Bee {n} lives in hive {n * n}."} for n in range(40)])
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"q": f"In which hive does bee {n} live ({again})?", "a": f"hive {n * n}", "pid": f"p{n}"}
        for n in range(40)
        for again in range(3)
    ]
    write_jsonl(path, rows)
    return path


COLUMNS = {"query": "q", "response": "a", "passage_id": "pid"}


def assemble(documents, dataset, columns=COLUMNS, **options) -> Corpus:
    sources = Sources(documents=documents, dataset=dataset, columns=columns)
    return assemble_corpus(sources, tokenizer=no_tokenizer, **options)


def test_one_table_of_each_is_split_by_passage(table: Path, questions: Path):
    corpus = assemble(table, questions)
    assert [passage.id for passage in corpus.passages] == [f"p{n}" for n in range(40)]
    owners: dict[str, str] = {}
    for name, examples in corpus.splits.items():
        for example in examples:
            assert owners.setdefault(str(example.passage_id), name) == name
    assert len(owners) == 40
    assert sum(map(len, corpus.splits.values())) == 120
    assert set(corpus.splits) == {"train", "validation", "test"}
    assert assemble(table, questions) == corpus


def test_fewer_passages_take_their_questions_along(table: Path, questions: Path):
    corpus = assemble(table, questions, max_passages=20, seed=3)
    kept = {passage.id for passage in corpus.passages}
    assert len(kept) == 20
    asked = [example for examples in corpus.splits.values() for example in examples]
    assert {example.passage_id for example in asked} == kept
    assert len(asked) == 60


def test_the_splits_of_a_dataset_are_kept(tmp_path: Path, table: Path, capsys):
    rows = [{"q": f"Where is bee {n}?", "a": "here", "pid": f"p{n}"} for n in range(6)]
    (tmp_path / "qa").mkdir()
    write_jsonl(tmp_path / "qa" / "train.jsonl", rows[:4])
    write_jsonl(tmp_path / "qa" / "held.jsonl", rows[4:])
    sources = Sources(
        documents=table,
        dataset=tmp_path / "qa",
        columns=COLUMNS,
        split_names={"train": "train", "validation": "valid", "test": "held"},
    )
    corpus = assemble_corpus(sources, tokenizer=no_tokenizer)
    assert {name: [e.query for e in examples] for name, examples in corpus.splits.items()} == {
        "train": [row["q"] for row in rows[:4]],
        "test": [row["q"] for row in rows[4:]],
    }
    # row numbers stand for ids in both files
    assert [e.id for e in corpus.splits["test"]] == ["test:1", "test:2"]
    assert "no split 'valid'" in capsys.readouterr().err
    with pytest.raises(DataError, match="no split 'test'") as caught:
        assemble(table, tmp_path / "qa")
    assert caught.value.where == f"data.test_split, {tmp_path / 'qa'}"


def test_documents_are_cut_and_questions_find_the_passage_with_the_answer(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    bees = " ".join(f"Bee {n} lives in hive {n * n}." for n in range(30))
    (tmp_path / "docs" / "bees.txt").write_text(bees)
    (tmp_path / "docs" / "ants.md").write_text("# Ants\n\nThey march.")
    rows = [
        {
            "query": f"In which hive does bee {n} live?",
            "answers": ["nowhere", f"HIVE  {n * n}"],
            "passage_id": "bees.txt",
        }
        for n in range(30)
    ]
    rows.append({"query": "What is lost?", "answers": ["nothing of this"], "passage_id": "ants.md"})
    write_jsonl(tmp_path / "qa.jsonl", rows)
    tokenizer = train_byte_bpe([bees], vocab_size=300)
    sources = Sources(
        documents=tmp_path / "docs", dataset=tmp_path / "qa.jsonl", chunk_tokens=40, chunk_overlap=8
    )
    corpus = assemble_corpus(sources, tokenizer=lambda: tokenizer)
    by_id = {passage.id: passage for passage in corpus.passages}
    assert corpus.passages[0].id == "ants.md#0"
    assert len(by_id) > 5
    for examples in corpus.splits.values():
        for example in examples:
            if example.query == "What is lost?":
                assert example.passage_id is None
            else:
                answer = " ".join(example.answers[1].lower().split())
                assert f"{answer}." in by_id[str(example.passage_id)].text
    assert corpus.manifest["chunk_tokens"] == 40


def test_rows_may_hold_their_passages(tmp_path: Path):
    path = tmp_path / "qa.jsonl"
    rows = [
        {"query": f"q{n}?", "response": "a", "context": [f"passage {n // 2}", "end"], "title": "T"}
        for n in range(40)
    ]
    write_jsonl(path, rows)
    corpus = assemble(None, path, {"text": "context"})
    assert [passage.text for passage in corpus.passages] == [f"passage {n}\nend" for n in range(20)]
    assert corpus.passages[0].title == "T"
    by_id = {passage.id: passage.text for passage in corpus.passages}
    for examples in corpus.splits.values():
        for example in examples:
            assert by_id[str(example.passage_id)].startswith(f"passage {int(example.query[1:-1]) // 2}\n")


def test_documents_alone_make_a_corpus_without_questions(table: Path):
    corpus = assemble(table, None)
    assert len(corpus.passages) == 40
    assert corpus.splits == {}


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        ({"documents": None}, "nothing to retrieve", "data.documents"),
        ({"documents": None, "dataset": None}, "neither a dataset nor documents", "data"),
        (
            {"columns": {**COLUMNS, "passage_id": "q"}},
            "120 of 120 questions name a passage that is not",
            "passage_id",
        ),
        ({"columns": {**COLUMNS, "query": "question"}}, "no column 'question'", "questions.jsonl, line 1"),
    ],
)
def test_what_does_not_fit_is_told(table: Path, questions: Path, change: dict, what: str, where: str):
    given = {"documents": table, "dataset": questions, "columns": COLUMNS, **change}
    with pytest.raises(DataError, match=what) as caught:
        assemble(**given)
    assert where in caught.value.where
    assert caught.value.fix


def test_too_few_questions_to_split_are_refused(table: Path, tmp_path: Path):
    write_jsonl(tmp_path / "one.jsonl", [{"q": "q", "a": "a", "pid": "p1"}])
    with pytest.raises(DataError, match="1 questions about 1 passages are too few to split"):
        assemble(table, tmp_path / "one.jsonl")


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"query": "q", "response": "a", "context": None}], "passage is null or empty"),
        (
            [{"query": "q", "response": "a", "contxt": "c"}],
            "no such column; columns there: query, response, contxt",
        ),
        (
            [{"query": f"q{n}", "response": "a", "context": f"c{n}", "passage_id": "same"} for n in range(2)],
            "two passages have the id 'same'",
        ),
    ],
)
def test_a_wrong_passage_in_a_row_is_named(tmp_path: Path, rows: list, what: str):
    path = tmp_path / "qa.jsonl"
    write_jsonl(path, rows)
    with pytest.raises(DataError, match=what) as caught:
        assemble(None, path, {"text": "context"})
    assert f"{path}, line {len(rows)}" in caught.value.where
