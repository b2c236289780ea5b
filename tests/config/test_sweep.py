"""Lists become runs: how many, in which order, with which values, and which belong together."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainshed.config.load import check_source
from trainshed.config.resolved import RunConfig, stage_of
from trainshed.config.sweep import expand
from trainshed.config.yaml_source import Source
from trainshed.errors import ConfigError
from trainshed.files import canonical_json

SCALARS = {
    ("execution", "seed"): st.integers(0, 9),
    ("model", "dtype"): st.sampled_from(["float32", "bfloat16", "auto"]),
    ("model", "lora_r"): st.integers(1, 9),
    ("data", "max_passages"): st.one_of(st.none(), st.integers(1, 9)),
    ("model", "use_peft"): st.booleans(),
    ("rag", "max_length"): st.integers(1, 9),
    ("rag", "embed_batch_size"): st.integers(1, 9),
    ("training", "learning_rate"): st.sampled_from([1e-5, 1e-4, 0.5]),
    ("training", "candidates"): st.integers(2, 9),
    ("training", "save_steps"): st.sampled_from([1.0, 2.0]),
}
DEFAULTS = {("data", "max_passages"): None}

axes = st.lists(st.sampled_from(sorted(SCALARS)), unique=True, max_size=4).flatmap(
    lambda keys: st.tuples(
        *(
            st.tuples(st.just(key), st.lists(SCALARS[key], min_size=1, max_size=3, unique_by=repr))
            for key in keys
        )
    )
)


def value_in(config: RunConfig, section: str, key: str):
    if section != "training":
        return getattr(getattr(config, section), key)
    own = config.training.own
    return getattr(own, key) if key in type(own).model_fields else config.training.arguments[key]


@settings(deadline=None, max_examples=60)
@given(axes)
def test_a_grid_is_the_product_in_the_order_of_the_file(chosen):
    data = {"execution": {"algorithm": "lsr"}}
    for (section, key), values in chosen:
        data.setdefault(section, {})[key] = values
    # sections group keys, so the order of the file is that of the sections, then of the keys in each
    order = [(s, k) for s, keys in data.items() for k in keys if k != "algorithm"]
    values = {key: items for key, items in chosen}
    runs = expand(check_source(Source("c.yaml", data, {}), environ={}))
    expected = list(itertools.product(*(values[key] for key in order)))
    assert len(runs) == len(expected)
    for run, row in zip(runs, expected, strict=True):
        assert run.swept == {".".join(key): value for key, value in zip(order, row, strict=True)}
        for (section, key), value in zip(order, row, strict=True):
            assert value_in(run.config, section, key) == value
    assert [run.name for run in runs] == ([f"lsr.{i}" for i in range(len(runs))] if order else ["lsr"])
    # every run is told from every other by what identifies it
    assert len({canonical_json(run.hyper_parameters) for run in runs}) == len(runs)


@settings(deadline=None, max_examples=30)
@given(axes)
def test_every_run_survives_json(chosen):
    data = {"execution": {"algorithm": "lsr"}}
    for (section, key), values in chosen:
        data.setdefault(section, {})[key] = values
    for run in expand(check_source(Source("c.yaml", data, {}), environ={})):
        assert RunConfig.from_json(json.loads(json.dumps(run.config.to_json()))) == run.config
        json.dumps([run.hyper_parameters, run.settings, run.swept], allow_nan=False)


def test_the_twelve_experiments(plug_ins, runs):
    """Two algorithms, two models and three learning rates: six runs of each algorithm."""
    found = runs(
        "execution:\n  algorithm: [dpo, kto]\n"
        "model_config_args:\n  model_name_or_path: [model_1, model_2]\n"
        "rl_config_args:\n  learning_rate: [5.0e-6, 1.0e-5, 1.0e-6]\n"
    )
    assert [run.name for run in found] == [f"dpo.{i}" for i in range(6)] + [f"kto.{i}" for i in range(6)]
    assert [run.config.training.algorithm for run in found] == ["dpo"] * 6 + ["kto"] * 6
    rates = [run.config.training.arguments["learning_rate"] for run in found]
    assert rates == [5e-6, 1e-5, 1e-6] * 4
    models = [run.config.model.model_name_or_path for run in found]
    assert models == (["model_1"] * 3 + ["model_2"] * 3) * 2
    assert found[4].swept == {
        "execution.algorithm": "dpo",
        "model.model_name_or_path": "model_2",
        "training.learning_rate": 1e-5,
    }


def test_a_key_of_one_algorithm_does_not_multiply_the_others(plug_ins, runs):
    found = runs(
        "training:\n  beta: [0.1, 0.2, 0.3]\n  desirable_weight: 2\n  learning_rate: [1e-5, 1e-6]\n"
        "execution:\n  algorithm: [kto, dpo]\n"
    )
    assert [run.name for run in found] == ["kto.0", "kto.1", *(f"dpo.{i}" for i in range(6))]
    assert found[0].config.training.own.desirable_weight == 2
    assert [run.config.training.own.beta for run in found[2:]] == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


def test_a_key_of_no_algorithm_is_an_error(plug_ins, load):
    with pytest.raises(ConfigError, match="candidates"):
        load("execution: {algorithm: [dpo, kto]}\ntraining: {candidates: 3}\n")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[q, v]", [["q", "v"]]),
        ("q", [["q"]]),
        ("[]", [[]]),
        ("[[q, v], [k]]", [["q", "v"], ["k"]]),
        ("[[q, v], all-linear]", [["q", "v"], ["all-linear"]]),
        ("[[]]", [[]]),
    ],
)
def test_a_list_where_a_list_is_taken_is_a_value(runs, written, expected):
    found = runs(f"execution: {{algorithm: pretrain}}\nmodel: {{lora_target_modules: {written}}}\n")
    assert [run.config.model.lora_target_modules for run in found] == expected


def test_arguments_that_take_a_word_or_a_list(runs):
    text = "execution: {algorithm: pretrain}\ntraining: {optim_target_modules: %s}\n"
    assert [r.config.training.arguments["optim_target_modules"] for r in runs(text % "[a, b]")] == [
        ["a", "b"]
    ]
    assert [r.config.training.arguments["optim_target_modules"] for r in runs(text % "a")] == ["a"]
    found = runs(text % "[[a, b], c]")
    assert [r.config.training.arguments["optim_target_modules"] for r in found] == [["a", "b"], "c"]


def test_mappings_are_values_and_their_texts_may_be_axes(runs):
    text = (
        "execution: {algorithm: pretrain}\n"
        "data: {columns: {query: [q, question], response: r}}\n"
        "training: {lr_scheduler_kwargs: [{num_cycles: 1}, {num_cycles: 2}]}\n"
    )
    found = [(r.config.data.columns, r.config.training.arguments["lr_scheduler_kwargs"]) for r in runs(text)]
    cycles = [{"num_cycles": 1}, {"num_cycles": 2}]
    assert found == [({"response": "r", "query": q}, c) for q in ("q", "question") for c in cycles]


def test_null_in_a_list_is_a_run_without_the_key(runs):
    found = runs("execution: {algorithm: lsr}\ntraining: {gate_scale: [3, null], eval_steps: [null, 5]}\n")
    assert [run.config.training.own.gate_scale for run in found] == [3.0, 3.0, 8.0, 8.0]
    assert [run.config.training.arguments["eval_steps"] for run in found] == [None, 5.0, None, 5.0]
    assert found[2].swept == {"training.gate_scale": None, "training.eval_steps": None}


def test_values_that_do_not_go_together_are_told(load):
    config = load("execution: {algorithm: pretrain}\nmodel: {hidden_size: [32, 48], num_heads: [4, 32]}\n")
    with pytest.raises(ConfigError) as caught:
        expand(config)
    assert "`hidden_size` 48 is not a multiple of `num_heads` 32" in caught.value.what
    assert caught.value.where == "c.yaml:2, model"


PIPELINE = """
execution: {algorithm: lsr}
pipeline:
  corpus: {stage: corpus, data: {dataset_name: builtin}}
  lsr:
    data: {dataset_name: "${stages.corpus}"}
    training: {lm_temperature: [0.1, 1.0]}
  index: {stage: index, data: {dataset_name: "${stages.corpus}"}}
  ralt:
    execution: {algorithm: ralt}
    needs: [index]
    training: {learning_rate: [1e-4, 1e-5, 1e-6]}
  both:
    stage: evaluate
    rag: {query_encoder: "${stages.lsr}/query_encoder"}
    model: {model_name_or_path: "${stages.ralt}"}
"""


def test_a_stage_multiplies_what_depends_on_it(runs):
    found = {run.name: run for run in runs(PIPELINE)}
    assert list(found) == [
        "corpus",
        *("lsr.0", "lsr.1"),
        "index",
        *("ralt.0", "ralt.1", "ralt.2"),
        *(f"both.{i}" for i in range(6)),
    ]
    assert found["lsr.1"].needs == ("corpus",)
    assert found["ralt.2"].needs == ("index",)
    assert sorted(found["both.4"].needs) == ["lsr.1", "ralt.1"]
    assert found["both.4"].swept == {
        "lsr.training.lm_temperature": 1.0,
        "ralt.training.learning_rate": 1e-5,
    }
    assert found["both.4"].hyper_parameters["model"]["model_name_or_path"] == "${stages.ralt}"
    assert stage_of("both.4") == "both"


def test_stages_that_share_an_axis_go_together(runs):
    found = {run.name: run for run in runs(PIPELINE + "rag: {retriever: [a, b]}\n")}
    # ralt does not multiply twice: its store was built with its retriever
    assert sum(name.startswith("ralt") for name in found) == 6
    assert sum(name.startswith("both") for name in found) == 12
    # without documents to cut no retriever is asked, so one corpus serves them all
    assert found["corpus"].swept == {}
    for run in found.values():
        for need in set(run.needs) - {"corpus"}:
            shared = run.swept.keys() & found[need].swept.keys()
            assert "rag.retriever" in shared
            assert all(run.swept[key] == found[need].swept[key] for key in shared)


def test_every_run_comes_after_what_it_needs_whatever_the_order_of_the_file(runs):
    text = (
        "execution: {algorithm: lsr}\npipeline:\n"
        "  c: {needs: b, training: {learning_rate: [1, 2]}}\n  b: {needs: [a]}\n  a: {}\n"
    )
    names = [run.name for run in runs(text)]
    assert names == ["a", "b", "c.0", "c.1"]


def test_algorithms_in_a_stage_of_a_pipeline(plug_ins, runs):
    found = runs(
        "execution: {seed: 3}\npipeline:\n"
        "  tune: {execution: {algorithm: [dpo, kto]}, training: {beta: [0.1, 0.2]}}\n"
        "  after: {stage: evaluate, needs: [tune]}\n"
    )
    names = [run.name for run in found]
    assert names == ["tune.0", "tune.1", "tune.2", "after.0", "after.1", "after.2"]
    assert [run.config.training.algorithm for run in found[:3]] == ["dpo", "dpo", "kto"]
    assert [run.needs for run in found[3:]] == [("tune.0",), ("tune.1",), ("tune.2",)]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_graphs_of_stages_multiply_by_the_axes_they_have_seen(data):
    """Against counting: a stage has as many runs as all axes at or above it multiply to."""
    size = data.draw(st.integers(1, 5))
    pipeline, sizes, seen = {}, {}, {}
    for index in range(size):
        name = f"s{index}"
        needs = (
            data.draw(st.lists(st.sampled_from([f"s{i}" for i in range(index)]), unique=True))
            if index
            else []
        )
        pipeline[name] = {"needs": needs}
        sizes[name] = data.draw(st.integers(0, 3))
        if sizes[name]:
            pipeline[name]["training"] = {"learning_rate": [float(i + 1) for i in range(sizes[name])]}
        seen[name] = set().union(*(seen[need] for need in needs)) | ({name} if sizes[name] else set())
    source = Source("c.yaml", {"execution": {"algorithm": "pretrain"}, "pipeline": pipeline}, {})
    runs = expand(check_source(source, environ={}))
    by_name = {run.name: run for run in runs}
    assert len(by_name) == len(runs)
    for name in pipeline:
        own = [run for run in runs if stage_of(run.name) == name]
        expected = 1
        for axis in seen[name]:
            expected *= sizes[axis]
        assert len(own) == expected
        assert [run.name for run in own] == (
            [f"{name}.{i}" for i in range(expected)] if seen[name] else [name]
        )
        for run in own:
            assert sorted(map(stage_of, run.needs)) == sorted(pipeline[name]["needs"])


def test_a_thousand_runs_check_each_combination_of_a_section_once(load, monkeypatch):
    from trainshed.config.trainers.pretrain import PretrainParameters

    calls = []
    split = PretrainParameters.split.__func__
    monkeypatch.setattr(
        PretrainParameters, "split", classmethod(lambda cls, v: calls.append(1) or split(cls, v))
    )
    seeds, rates = list(range(50)), [i / 1e6 for i in range(1, 11)]
    text = f"training: {{learning_rate: {rates}, block_size: [1, 2]}}\n"
    text += f"execution: {{algorithm: pretrain, seed: {seeds}}}\n"
    assert len(expand(load(text))) == 1000
    assert len(calls) == 20
