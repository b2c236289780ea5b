"""Prompts from files and the built-in corpus, with what rewards read."""

import pytest

from trainshed.config.schema import DataSection
from trainshed.data.examples import RagExample
from trainshed.data.jsonl import write_jsonl
from trainshed.data.prompts import as_prompts, read_prompts
from trainshed.errors import ConfigError, DataError


def test_columns_are_kept_and_named(tmp_path):
    rows = [{"question": f"q{i}", "gold": i, "completion": "old"} for i in range(5)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    section = DataSection(
        dataset_name=str(tmp_path), columns={"prompt": "question", "answer": "gold"}, max_train_samples=2
    )
    found = read_prompts(section, "train")
    assert [(p.prompt, p.columns["answer"]) for p in found] == [("q0", 0), ("q1", 1)]
    assert "completion" not in found[0].columns
    assert read_prompts(section, "validation") == []


def test_the_built_in_questions(monkeypatch):
    """Building the corpus takes seconds, and is tested where it is built."""
    asked = []

    def split(name):
        asked.append(name)
        return [RagExample("why?", "so", answers=("so", "thus"))] * 5

    monkeypatch.setattr("trainshed.data.prompts.builtin_split", split)
    found = read_prompts(DataSection(dataset_name="builtin", max_eval_samples=3), "validation")
    assert asked == ["validation"]
    assert len(found) == 3
    assert found[0].prompt == "Question: why?\nAnswer:"
    assert found[0].columns == {"answer": "so", "answers": ["so", "thus"]}


@pytest.mark.parametrize(
    "row",
    [{"prompt": ""}, {"prompt": 3}, {"prompt": []}, {"prompt": [{"content": "x"}]}, {"text": "x"}],
)
def test_what_is_no_prompt(row):
    with pytest.raises(DataError, match="has no prompt") as caught:
        as_prompts(["ok", row])
    assert "row 2" in str(caught.value)


def test_a_conversation_must_wait_for_an_answer():
    with pytest.raises(DataError, match="nothing left to answer"):
        as_prompts([{"prompt": [{"role": "assistant", "content": "x"}]}])
    with pytest.raises(ConfigError, match="no dataset is named"):
        read_prompts(DataSection(), "train")
