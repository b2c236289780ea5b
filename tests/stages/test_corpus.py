"""The stage that prepares a corpus."""

from pathlib import Path

import pytest

from trainshed.config.resolved import RunConfig
from trainshed.config.schema import DataSection, ExecutionSection
from trainshed.data.corpus import read_corpus
from trainshed.data.jsonl import write_jsonl
from trainshed.errors import ConfigError, DataError
from trainshed.plan.directory import RunDirectory
from trainshed.stages.context import StageContext
from trainshed.stages.corpus import run


def context(path: Path, *, seed: int = 0, **data) -> StageContext:
    directory = RunDirectory(path / "run")
    directory.outputs.mkdir(parents=True)
    config = RunConfig(
        name="corpus", stage="corpus", execution=ExecutionSection(seed=seed), data=DataSection(**data)
    )
    return StageContext(directory=directory, config=config)


def test_without_data_of_ones_own_it_is_the_builtin_corpus(tmp_path: Path):
    given = context(tmp_path, seed=1, max_passages=200)
    result = run(given)
    corpus = read_corpus(given.directory.outputs)
    assert corpus.manifest["name"] == "builtin"
    assert corpus.manifest["seed"] == 1
    assert result.metrics == {
        "corpus/passages": 200.0,
        **{f"corpus/{name}_questions": float(len(examples)) for name, examples in corpus.splits.items()},
    }
    # what it wrote may be the dataset of another run
    again = context(tmp_path / "again", dataset_name=str(given.directory.outputs), max_passages=50)
    run(again)
    fewer = read_corpus(again.directory.outputs)
    assert len(fewer.passages) == 50
    assert set(fewer.passages) < set(corpus.passages)
    assert set(fewer.splits["train"]) < set(corpus.splits["train"])
    (given.directory.outputs / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="damaged"):
        run(context(tmp_path / "third", dataset_name=str(given.directory.outputs)))


def test_documents_are_cut_by_the_retrievers_tokens(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    sentences = [f"Bee number {n} lives in hive {n * n}." for n in range(30)]
    (tmp_path / "docs" / "bees.md").write_text("# Bees\n\n" + " ".join(sentences))
    rows = [
        {"question": f"In which hive does bee {n} live?", "answers": [f"hive {n * n}."], "doc": "bees.md"}
        for n in range(30)
    ]
    write_jsonl(tmp_path / "qa.jsonl", rows)
    given = context(
        tmp_path,
        documents=str(tmp_path / "docs"),
        dataset_name=str(tmp_path / "qa.jsonl"),
        columns={"query": "question", "response": "answers", "passage_id": "doc"},
        chunk_tokens=24,
        chunk_overlap=12,
    )
    result = run(given)
    corpus = read_corpus(given.directory.outputs)
    assert result.metrics["corpus/passages"] == len(corpus.passages) > 10
    assert {passage.title for passage in corpus.passages} == {"Bees"}
    by_id = {passage.id: passage for passage in corpus.passages}
    for examples in corpus.splits.values():
        assert all(example.response in by_id[str(example.passage_id)].text for example in examples)


def test_builtin_questions_do_not_go_with_other_documents(tmp_path: Path):
    with pytest.raises(ConfigError, match="built-in questions are about the built-in passages"):
        run(context(tmp_path, dataset_name="builtin", documents=str(tmp_path)))


def test_a_failure_writes_nothing(tmp_path: Path):
    given = context(tmp_path, dataset_name=str(tmp_path / "missing.jsonl"), documents=str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        run(given)
    assert list(given.directory.outputs.iterdir()) == []
