"""Loading questions with answers, and what is said of rows that are wrong."""

import datasets
import pytest

from trainshed.data.examples import RagExample, load_examples, write_examples
from trainshed.data.jsonl import write_jsonl
from trainshed.errors import DataError

ROWS = [{"query": "Who?", "response": "Ada"}, {"query": "When?", "response": "1843"}]
EXAMPLES = [RagExample("Who?", "Ada", "1"), RagExample("When?", "1843", "2")]


def test_examples_go_through_json(tmp_path):
    examples = [
        RagExample("Who?", "Ada", "a", "p1", "person", ("Ada", "Ada Lovelace")),
        RagExample("When?", "1843", "b"),
    ]
    write_examples(tmp_path / "all.jsonl", examples)
    assert load_examples(tmp_path / "all.jsonl") == examples
    assert examples[0].accepted == ("Ada", "Ada Lovelace")
    assert examples[1].accepted == ("1843",)


def test_every_kind_of_source_gives_the_same(tmp_path):
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.to_json(tmp_path / "rows.jsonl")
    dataset.to_json(tmp_path / "rows.json", lines=False)
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(tmp_path / "splits")
    for source in ("rows.parquet", "rows.jsonl", "rows.json", "saved", "splits"):
        assert load_examples(tmp_path / source) == EXAMPLES, source
    assert load_examples(dataset) == load_examples(ROWS) == load_examples(EXAMPLES) == EXAMPLES
    assert load_examples(dataset.to_iterable_dataset()) == EXAMPLES
    assert load_examples(tmp_path / "splits", split="test") == EXAMPLES[:1]


def test_columns_are_mapped_and_numbers_may_be_ids():
    rows = [{"question": "Who?", "answer": "Ada", "pid": 4, "qid": 9, "type": "person"}]
    columns = {"query": "question", "response": "answer", "passage_id": "pid", "id": "qid", "kind": "type"}
    assert load_examples(rows, columns=columns) == [RagExample("Who?", "Ada", "9", "4", "person")]


@pytest.mark.parametrize(
    ("row", "columns", "answers"),
    [
        ({"query": "q", "response": ["a", "b", "a"]}, {}, ("a", "b")),
        ({"query": "q", "answers": ["a", "b"]}, {}, ("a", "b")),
        ({"query": "q", "response": "a", "answers": ["b", "a"]}, {}, ("a", "b")),
        ({"query": "q", "gold": {"text": ["a"], "answer_start": [3]}}, {"response": "gold"}, ("a",)),
        ({"query": "q", "response": "a", "answers": []}, {}, ("a",)),
    ],
)
def test_the_first_answer_is_the_response_and_all_are_accepted(row, columns, answers):
    (example,) = load_examples([row], columns=columns)
    assert example.response == answers[0]
    assert example.accepted == answers


def test_the_limit_counts_rows_and_leaves_the_rest_unread():
    assert load_examples([*ROWS, {"broken": 1}], limit=2) == EXAMPLES
    assert load_examples(EXAMPLES, limit=1) == EXAMPLES[:1]


def test_a_wrong_column_lists_those_present_and_the_nearest():
    with pytest.raises(DataError, match="no column 'query'") as caught:
        load_examples([{"querry": "Who?", "reply": "Ada"}])
    assert caught.value.fix.startswith("did you mean 'querry'? Columns there: querry, reply.")
    with pytest.raises(DataError, match="no column 'answr'") as caught:
        load_examples([{"query": "Who?", "answer": "Ada"}], columns={"response": "answr"})
    assert "did you mean 'answer'?" in caught.value.fix


def test_a_wrong_name_in_the_mapping_is_an_error():
    with pytest.raises(DataError, match="unknown column 'qeury'") as caught:
        load_examples(ROWS, columns={"qeury": "question"})
    assert caught.value.fix.startswith("did you mean 'query'?")


@pytest.mark.parametrize(
    ("row", "what", "column"),
    [
        ({"query": None, "response": "a"}, "null", "'query'"),
        ({"query": " ", "response": "a"}, "an empty string", "'query'"),
        ({"query": "q", "response": 3}, "a number", "'response'"),
        ({"query": "q", "response": []}, "list of answers is empty", "'response'"),
        ({"query": "q", "response": ["a", None]}, "null", r"'response\[1\]'"),
        ({"query": "q", "response": "a", "id": True}, "a boolean", "'id'"),
    ],
)
def test_a_wrong_value_names_file_line_and_column(tmp_path, row, what, column):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [*ROWS, row])
    with pytest.raises(DataError, match=f"(?s){what}.*line 3, column {column}") as caught:
        load_examples(path)
    assert caught.value.where.startswith(str(path))


def test_an_id_that_occurs_twice_names_both_places():
    rows = [{**row, "id": "same"} for row in ROWS]
    with pytest.raises(DataError, match=r"(?s)'same' stands at the list given, item 1 already.*item 2"):
        load_examples(rows)


def test_the_builtin_corpus_has_three_splits(builtin_corpus, monkeypatch):
    monkeypatch.setattr("trainshed.data.builtin.build_corpus", lambda: builtin_corpus)
    assert load_examples("builtin", split="validation", limit=7) == builtin_corpus.splits["validation"][:7]
    with pytest.raises(DataError, match="no split 'tset'") as caught:
        load_examples("builtin", split="tset")
    assert "did you mean 'test'?" in caught.value.fix
