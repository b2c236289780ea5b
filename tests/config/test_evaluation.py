"""Measuring a language model in a YAML: what it needs, what it reads, and what has no effect."""

import pytest

from trainshed.config.evaluation import MEASURES, READ_BY, LanguageEvaluation
from trainshed.config.resolved import RunConfig
from trainshed.errors import ConfigError

STAGE = """\
pipeline:
  a:
    stage: evaluate
    model: {model_name_or_path: org/after}
    data: {dataset_name: org/rows}
    evaluation:
      language_model: perplexity
"""
KEY = "pipeline.a.evaluation"


def hyper(runs, *overrides):
    (run,) = runs(STAGE, *overrides)
    return run.hyper_parameters


def failure(load, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return caught.value


def test_what_is_measured_is_what_is_read(runs):
    plain = hyper(runs)
    assert "rag" not in plain
    assert set(plain["evaluation"]) == {
        *("language_model", "harness_tasks", "split", "max_samples", "bootstrap_samples", "confidence"),
        *("baseline_generator", "max_length", "stride"),
    }
    assert hyper(runs, f"{KEY}.stride=7") != plain
    # a shared section may say more than this stage reads
    assert hyper(runs, "rag.top_k=9", "evaluation.temperature=1", "evaluation.top_k_values=[3]") == plain


def test_every_key_is_read_by_some_measure():
    told = set().union(*READ_BY.values()) | {"language_model", "harness_tasks"}
    assert told - {"split", "max_samples"} == set(LanguageEvaluation.model_fields)
    assert set(READ_BY) == {*MEASURES, "harness_tasks"}


def test_tasks_alone_read_no_rows(runs, load):
    text = STAGE.replace("language_model: perplexity", "harness_tasks: [x]")
    text = text.replace("    data: {dataset_name: org/rows}\n", "")
    (run,) = runs(text, "data.dataset_name=org/shared")
    assert set(run.hyper_parameters) == {"stage", "execution", "model", "evaluation"}
    for own, fix in (("split=x", "perplexity, preference, reward, win_rate"), ("stride=3", "it: perplexity")):
        error = failure(load, text, f"{KEY}.{own}")
        assert "that measures harness_tasks does not read evaluation." in error.what
        assert fix in error.fix
    assert "does not read data.columns" in failure(load, text, "pipeline.a.data.columns={a: b}").what


def test_a_rag_system_reads_none_of_it(runs, load):
    text = "pipeline: {a: {stage: evaluate}}\n"
    (run,) = runs(text, "evaluation.stride=3")
    assert "rag" in run.hyper_parameters
    assert "stride" not in run.hyper_parameters["evaluation"]
    error = failure(load, text, f"{KEY}.stride=3")
    assert "'evaluate' of a RAG system does not read evaluation.stride" in error.what
    assert error.fix.endswith("measure what reads it: perplexity")


@pytest.mark.parametrize(
    ("own", "what", "fix"),
    [
        ("evaluation.judge=length", "that measures perplexity does not read evaluation.judge", "win_rate"),
        ("evaluation.temperature=1", "does not read evaluation.temperature", "it: reward, win_rate"),
        ("evaluation.top_k_values=[3]", "does not read evaluation.top_k_values", "without language_model"),
        ("rag.top_k=3", "that measures perplexity does not read rag.top_k", "read by: evaluate;"),
    ],
)
def test_what_has_no_effect_is_told(load, own, what, fix):
    error = failure(load, STAGE, f"pipeline.a.{own}")
    assert what in error.what
    assert fix in error.fix


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["language_model=reward"], "names reward; name `rewards`, or a `reward_model`"),
        (["language_model=win_rate"], "names win_rate; name `judge` and `baseline_generator` too"),
        (["language_model=win_rate", "judge=length"], "name `baseline_generator` too"),
        (["language_model=[perplexity, perplexity]"], "names a measure twice"),
        (["language_model=perplexty"], "'perplexty' is not one of the words"),
        (["stride=8", "max_length=8"], "`stride` 8 is not below `max_length` 8"),
        (["language_model=reward", "rewards=exact_mach"], "unknown reward 'exact_mach'; did you mean"),
        (["language_model=reward", "rewards=reward_model"], "say which model it is"),
        (["language_model=win_rate", "judge=reward_model"], "`judge` names reward_model"),
        (["judge={name: length, mots: 3}"], "reward length: it has no option 'mots'"),
        (["harness_tasks=[x]", "harness_path=nowhere"], "no such file or directory"),
    ],
)
def test_what_cannot_be_meant(load, overrides, what):
    assert what in failure(load, STAGE, *(f"{KEY}.{override}" for override in overrides)).what


def test_a_model_and_rows_are_needed(load):
    text = STAGE.replace("    model: {model_name_or_path: org/after}\n", "")
    error = failure(load, text)
    assert error.what == "nothing says which model to measure with: perplexity"
    assert error.fix == "set model.model_name_or_path"
    load(text, "model.model_name_or_path=org/shared")
    text = STAGE.replace("    data: {dataset_name: org/rows}\n", "")
    assert "which data to measure" in failure(load, text).what
    # tasks bring their own
    load(text.replace("language_model: perplexity", "harness_tasks: [x]"))


def test_the_worker_reads_what_was_checked(runs, tmp_path):
    (tmp_path / "tasks").mkdir()
    more = ["language_model=[win_rate]", "judge={name: length, most: 3}", "baseline_generator=org/before"]
    (run,) = runs(STAGE, *(f"{KEY}.{each}" for each in (*more, "harness_tasks=x", "harness_path=tasks")))
    section = RunConfig.from_json(run.config.to_json()).evaluation
    assert (section.judge.name, section.judge.options) == ("length", {"most": 3})
    assert section.harness_path == str(tmp_path / "tasks")
    assert run.inputs == (section.harness_path,)
    assert section.measures_language_model()


def test_judges_in_a_list_are_a_sweep(runs):
    more = [f"{KEY}.language_model=win_rate", f"{KEY}.baseline_generator=org/before"]
    swept = runs(STAGE, *more, f"{KEY}.judge=[length, 'my:judge']")
    assert [run.config.evaluation.judge.name for run in swept] == ["length", "my:judge"]
    swept = runs(STAGE, f"{KEY}.language_model=[[perplexity], [preference]]")
    assert [run.config.evaluation.language_model for run in swept] == [["perplexity"], ["preference"]]


def test_the_model_before_comes_from_another_stage(runs):
    text = STAGE + "  b: {execution: {algorithm: pretrain}}\n"
    found = runs(text, f"{KEY}.baseline_generator=${{stages.b}}")
    assert next(run for run in found if run.name == "a").needs == ("b",)
