"""Loading: problems with file, line, key and the way out; all of them at once."""

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainshed.config.load import load_config
from trainshed.config.schema import SECTIONS
from trainshed.errors import ConfigError

LSR = "execution:\n  algorithm: lsr\n"


def failure(load, text, *overrides, **options) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides, **options)
    return caught.value


@pytest.mark.parametrize(
    ("text", "what", "where", "fix"),
    [
        ("trainin:\n  seed: 1\n", "unknown section 'trainin'", "c.yaml:3, trainin", "'training'"),
        ("seed: 1\n", "unknown section 'seed'", "c.yaml:3, seed", "write it under execution"),
        ("federation: {nodes: 2}\n", "'federation' is not available", "c.yaml:3, federation", "leave it out"),
        ("model:\n", None, None, None),
        ("federation:\n", "'federation' is not available", "c.yaml:3, federation", "leave it out"),
        ("model: gpt\n", "must hold keys", "c.yaml:3, model", "model: {key: value}"),
        ("model:\n  dtyp: auto\n", "unknown key 'dtyp'", "c.yaml:4, model.dtyp", "'dtype'"),
        ("model:\n  learning_rate: 1\n", "unknown key", "c.yaml:4, model.learning_rate", "training.learning"),
        ("model:\n  qzx: 1\n", "unknown key", "c.yaml:4, model.qzx", "known: attn_implementation"),
        ("data:\n  top_k: 1\n", "unknown key 'top_k'", "c.yaml:4, data.top_k", "rag.top_k"),
        ("training:\n  candidate: 3\n", "unknown key", "c.yaml:4, training.candidate", "'candidates'"),
        (
            "training:\n  block_size: 3\n",
            "unknown key",
            "c.yaml:4, training.block_size",
            "algorithm mamba or pretrain",
        ),
        ("training:\n  dtype: auto\n", "unknown key", "c.yaml:4, training.dtype", "model.dtype"),
        ("training:\n  qzx: 3\n", "unknown key", "c.yaml:4, training.qzx", "trainshed schema"),
        ("training:\n  seed: 3\n", "set execution.seed", "c.yaml:4, training.seed", "leave it out"),
        ("training:\n  local_rank: 0\n", "the launcher gives", "c.yaml:4, training.local_rank", None),
        ("training:\n  logging_dir: x\n", "logs lie in the run", "c.yaml:4, training.logging_dir", None),
        ("training:\n  optim: adam_torch\n", "not one of", "c.yaml:4, training.optim", "'adamw_torch'"),
        ("training:\n  gate: 3\n", "valid boolean", "c.yaml:4, training.gate", None),
        ("training:\n  learning_rate: true\n", "no truth value", "c.yaml:4, training.learning_rate", None),
        ("training:\n  learning_rate: [1, true]\n", "no truth value", "c.yaml:4, training.learning", None),
        ("training:\n  learning_rate: [1, x]\n", "valid number", "c.yaml:4, training.learning_rate", None),
        ("training:\n  num_train_epochs:\n  - 1\n  - x\n", "not 'x'", "c.yaml:6, training.num_train", None),
        ("training:\n  learning_rate: []\n", "empty list", "c.yaml:4, training.learning_rate", "one value"),
        ("training:\n  learning_rate: [[1]]\n", "nested too deep", "c.yaml:4, training.learning_rate", None),
        ("training:\n  learning_rate: [1, 2, 1]\n", "there twice", "c.yaml:4, training.learning", None),
        ("training:\n  optim_args: true\n", "no truth value", "c.yaml:4, training.optim_args", None),
        ("training:\n  fsdp_config: {a: .nan}\n", "takes a mapping or text", "c.yaml:4, training.fsdp", None),
        ("training:\n  optim_target_modules: 3\n", "text or a list", "c.yaml:4, training.optim", None),
        ("model:\n  revision: 12\n", "valid string", "c.yaml:4, model.revision", 'write "12" in quotes'),
        ("rag:\n  store: [memory, fais]\n", "unknown store 'fais'", "c.yaml:4, rag.store", None),
        ("environment:\n  A: true\n", '"true" in quotes', "c.yaml:4, environment.A", None),
        ("environment:\n  A: {B: 1}\n", "valid string", "c.yaml:4, environment.A", None),
        ("data:\n  columns: {query: 1}\n", "valid string", "c.yaml:4, data.columns.query", None),
        ("data:\n  dataset_name: x/y.jsonl\n", "no such file", "c.yaml:4, data.dataset_name", None),
        ("data:\n  documents: [., ./a]\n", "/a", "c.yaml:4, data.documents", None),
        ("evaluation:\n  split: [a, b]\n", "no stage reads", "c.yaml:4, evaluation.split", "one value"),
        ("rag:\n  retriever: ~nosuchuser/x\n", "no such file", "c.yaml:4, rag.retriever", None),
        ("model:\n  use_dora: true\n", "use_peft", "c.yaml:3, model", None),
        ("rag:\n  top_k: ${env:K}\n", "K is not set", "c.yaml:4, rag.top_k", None),
        ("rag:\n  prompt: '{context}${x}{query}'\n", "${x} is not known", "c.yaml:4, rag.prompt", None),
        ("rag:\n  store_url: a${stages.x}\n", "must begin the value", "c.yaml:4, rag.store_url", None),
        ("rag:\n  retriever: ${stages.x}\n", "there is no stage 'x'", "c.yaml:4, rag.retriever", "none"),
        ("pipeline: [a]\n", "pipeline must map", "c.yaml:3, pipeline", None),
        ("pipeline:\n  a.b: {}\n", "cannot be the name", "c.yaml:4, pipeline.a.b", None),
        ("pipeline:\n  a: 1\n", "a stage must hold keys", "c.yaml:4, pipeline.a", None),
        (
            "pipeline:\n  a: {stage: trian}\n",
            "unknown stage 'trian'",
            "c.yaml:4, pipeline.a.stage",
            "'train'",
        ),
        ("pipeline:\n  a: {needs: [b]}\n", "there is no stage 'b'", "c.yaml:4, pipeline.a.needs.0", None),
        ("pipeline:\n  a: {needs: 3}\n", "must be a list", "c.yaml:4, pipeline.a.needs", None),
        ("pipeline:\n  a:\n    lr: 3\n", "unknown section 'lr'", "c.yaml:5, pipeline.a.lr", None),
        ("pipeline:\n  a:\n    model: {x: 3}\n", "unknown key 'x'", "c.yaml:5, pipeline.a.model.x", None),
        (
            "pipeline:\n  a:\n    execution: {jobs: 3}\n",
            "one for all",
            "c.yaml:5, pipeline.a.execution.jobs",
            None,
        ),
        ("pipeline:\n  a:\n    stage: index\n    model: {dtype: auto}\n", "does not read", "c.yaml:6", None),
        ("pipeline:\n  a: {needs: [a]}\n", "a -> a", "c.yaml:4, pipeline.a", None),
        (
            "pipeline:\n  a: {needs: [b]}\n  b:\n    model: {model_name_or_path: '${stages.a}'}\n",
            "a -> b -> a",
            "c.yaml:4, pipeline.a",
            None,
        ),
    ],
)
def test_one_problem(load, text, what, where, fix):
    if what is None:
        load(LSR + text)
        return
    error = failure(load, LSR + text)
    assert "problems" not in error.what, error.what
    assert what in error.what
    assert (error.where or "").startswith(where)
    assert fix is None or fix in (error.fix or "")


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("execution: {}\n", "needs an algorithm", "c.yaml:1, execution.algorithm"),
        ("execution: {algorithm: lsrr}\n", "unknown algorithm 'lsrr'", "c.yaml:1, execution.algorithm"),
        ("execution: {algorithm: [lsr,\n x]}\n", "unknown algorithm 'x'", "c.yaml:2, execution.algorithm"),
        ("execution: {algorithm: [lsr, lsr]}\n", "there twice", "c.yaml:1, execution.algorithm"),
        ("execution: {algorithm: lsr, launcher: x}\n", "launcher is not available", "c.yaml:1, execution.l"),
        ("execution: {algorithm: lsr, output_dir: x}\n", "is relative", "c.yaml:1, execution.output_dir"),
        ("execution: {algorithm: lsr, output_dir: ~nosuchuser/x}\n", "no such user", "c.yaml:1, execution"),
        ("execution: {algorithm: lsr, output_dir: [/x]}\n", "one for all runs", "c.yaml:1, execution.output"),
        ("execution: {algorithm: lsr, jobs: [1, 2]}\n", "one for all runs", "c.yaml:1, execution.jobs"),
        ("pipeline:\n  a:\n    stage: train\n", "needs an algorithm", "c.yaml:2, pipeline.a.execution"),
    ],
)
def test_problems_of_execution(load, text, what, where):
    error = failure(load, text)
    assert what in error.what
    assert (error.where or "").startswith(where)


def test_all_problems_are_told_together(load):
    text = LSR + "model:\n  dtyp: 1\ntraining:\n  learning_rate: x\n  seed: 3\nrag:\n  top_k: 0\n"
    error = failure(load, text, "data.chunk_token=3", "rag.rrf_k=-1")
    assert error.what.startswith("6 problems in the configuration:")
    for place in ("c.yaml:4, model.dtyp", "c.yaml:6, training.learning_rate", "c.yaml:7, training.seed"):
        assert f"where: {place}" in error.what
    assert "where: c.yaml:9, rag.top_k" in error.what
    assert error.what.count("where: command line") == 2


def test_a_shared_problem_is_told_once_however_many_stages_share_it(load):
    text = "model: {dtyp: 1}\npipeline:\n" + "".join(
        f"  s{i}: {{execution: {{algorithm: pretrain}}}}\n" for i in range(5)
    )
    assert failure(load, text).what == "unknown key 'dtyp'"


names = st.sampled_from([f"{s}.{k}" for s, m in SECTIONS.items() for k in m.model_fields])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 4), after=st.integers(0, 3), name=names, cut=st.data())
def test_a_misspelt_key_is_told_with_its_line_and_the_right_one(load, before, after, name, cut):
    section, _, key = name.partition(".")
    place = cut.draw(st.integers(1, len(key) - 2))
    wrong = key[:place] + "x" + key[place:]
    filler = "# line\n"
    text = filler * before + f"{section}:\n" + filler * after + f"  {wrong}: 1\n"
    rest = "" if section == "execution" else "execution:\n  algorithm: lsr\n"
    error = failure(load, text + rest, *(["execution.algorithm=lsr"] if not rest else []))
    assert error.what == f"unknown key {wrong!r}"
    assert error.where == f"c.yaml:{before + after + 2}, {section}.{wrong}"
    assert error.fix


def test_null_is_not_set(load, runs):
    (run,) = runs(
        LSR + "  seed:\ntraining:\n  seed:\n  learning_rate:\n  save_total_limit:\nmodel:\n  dtype:\n"
    )
    assert run.config.execution.seed == 0
    assert run.config.model.dtype == "float32"
    # where null is a value it stays one, over a default of ours
    assert run.config.training.arguments == {"logging_steps": 10.0, "save_total_limit": None}


def test_a_word_is_a_list_of_one(runs):
    (run,) = runs(LSR + "  trackers: tensorboard\nmodel:\n  lora_target_modules: q_proj\n")
    assert run.config.execution.trackers == ["tensorboard"]
    assert run.config.model.lora_target_modules == ["q_proj"]


def test_json_files(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"execution": {"algorithm": "lsr"}, "rag": {"top_k": 7}}))
    config = load_config(path, ["rag.rrf_k=3"])
    assert config.stages[0].sections["rag"].at({}).value.top_k == 7
    path.write_text(json.dumps({"execution": {"algorithm": "lsr"}, "rag": {"topk": 7}}, indent=1))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.where == f"{path}:6, rag.topk"


def test_other_kinds_of_work_without_a_pipeline(load, runs):
    (run,) = runs("data:\n  dataset_name: builtin\n", stage="evaluate")
    assert (run.name, run.stage, run.config.training) == ("evaluate", "evaluate", None)


def test_output_dir_and_jobs_of_the_plan(load):
    config = load(LSR + "  output_dir: /runs\n  jobs: 3\n")
    assert (str(config.output_dir), config.jobs) == ("/runs", 3)
    assert load(LSR).output_dir is None


def test_loading_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from trainshed.config.load import check_source\n"
        "from trainshed.config.sweep import expand\n"
        "from trainshed.config.json_schema import schema_text\n"
        "from trainshed.config.example import example\n"
        "from trainshed.config.yaml_source import parse_yaml\n"
        "expand(check_source(parse_yaml(example('rag'), 'c'))); schema_text()\n"
        "heavy = 'torch transformers datasets numpy pandas pyarrow sentence_transformers tokenizers rich'\n"
        "print([name for name in heavy.split() if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
