"""A key that a stage sets and does not read is told, with who reads it."""

import pytest

from trainshed.config.unread import readers
from trainshed.errors import ConfigError

PIPELINE = """\
data: {dataset_name: "${stages.c}"}
rag: {top_k: 3, rrf_k: 30}
pipeline:
  c: {stage: corpus, data: {dataset_name: builtin}}
  i: {stage: index}
  lsr:
    execution: {algorithm: lsr}
    rag:
      retriever: ${stages.i}/retriever
  report:
    stage: evaluate
    rag:
      retriever: ${stages.lsr}/retriever
      top_k: 5
"""


def failure(load, text: str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return caught.value


@pytest.mark.parametrize(
    ("own", "what", "fix"),
    [
        ("lsr.rag.top_k=3", "'train' with algorithm lsr does not read rag.top_k", "read by: evaluate;"),
        ("lsr.rag.reranker=org/x", "rag.reranker", "read by: evaluate, train with rag, train with ralt;"),
        ("lsr.rag.retrieval_temperature=1", "does not read rag.retr", "set training.retrieval_temperature"),
        ("lsr.evaluation.split=x", "algorithm lsr does not read the section 'evaluation'", "by: evaluate;"),
        ("i.rag.top_k=3", "'index' does not read rag.top_k", "read by: evaluate;"),
        (
            "i.data.train_split=x",
            "does not read data.train_split",
            "read by: corpus, evaluate, train with all but rl;",
        ),
        ("c.rag.retriever=org/x", "'corpus' without data.documents does not read", "corpus with data.doc"),
        ("c.execution.algorithm=lsr", "'corpus' does not read execution.algorithm", "read by: train;"),
    ],
)
def test_a_stage_sets_only_what_it_reads(load, own, what, fix):
    load(PIPELINE)
    error = failure(load, PIPELINE, f"pipeline.{own}")
    assert "problems" not in error.what, error.what
    assert what in error.what
    assert error.where is not None
    assert own.startswith(error.where.removeprefix("command line, pipeline.").split("=")[0])
    assert fix in (error.fix or "")
    assert (error.fix or "").endswith("leave it out")


def test_the_place_is_file_line_and_key(load):
    error = failure(
        load, PIPELINE.replace("      retriever: ${stages.i}", "      top_k: 3\n      retriever: a")
    )
    assert error.where == "c.yaml:9, pipeline.lsr.rag.top_k"


def test_one_of_several_algorithms_is_enough(load):
    load(PIPELINE, "pipeline.lsr.execution.algorithm=[lsr, ralt]", "pipeline.lsr.rag.reranker=org/x")
    both = failure(load, PIPELINE, "pipeline.lsr.execution.algorithm=[lsr, ralt]", "pipeline.lsr.rag.top_k=3")
    assert "with algorithms lsr, ralt does not read" in both.what


@pytest.mark.parametrize(
    "own",
    [
        "lsr.rag.top_k=null",
        "lsr.rag.store=faiss",
        "lsr.rag.embed_batch_size=3",
        "c.execution.device=cpu",
        "i.execution.project=x",
        "i.execution.seed=3",
        "report.data.columns={query: q}",
    ],
)
def test_what_is_read_or_a_setting_or_not_set_may_stand_there(load, own):
    load(PIPELINE, f"pipeline.{own}")


def test_a_sweep_in_a_stage_that_does_not_read_its_key_is_told_once(load):
    error = failure(load, PIPELINE, "pipeline.lsr.rag.top_k=[1, 2]")
    assert "problems" not in error.what
    assert "does not read rag.top_k" in error.what


def test_a_stage_of_a_plug_in_reads_everything(load, monkeypatch):
    from trainshed.registry import STAGES

    monkeypatch.setattr(STAGES, "_objects", {**STAGES._objects, "serve": lambda context: None})
    load("pipeline: {a: {stage: serve, rag: {top_k: 3}, evaluation: {split: x}}}\n")
    assert readers("rag", "top_k") == ["evaluate", "serve"]


def test_a_configuration_of_one_run_says_what_has_no_effect(load, capsys):
    text = "execution:\n  algorithm: lsr\nrag:\n  top_k: 3\n  store: faiss\n"
    config = load(text, "evaluation.split=x", "rag.rrf_k=3", "rag.reranker=null")
    who = "a stage of kind 'train' with algorithm lsr does not read"
    way_out = "so it has no effect; read by: evaluate; move it there, or leave it out"
    assert config.notes == (
        f"c.yaml:4: {who} rag.top_k, {way_out}",
        f"command line: {who} the section 'evaluation', {way_out}",
    )
    assert capsys.readouterr().err.splitlines() == list(config.notes)
