"""Plans: order, keys of what depends on what, directories that stay."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.errors import ConfigError, DataError, RunError
from trainshed.plan.graph import in_order, make_plan, mermaid, read_plan, substitute


@given(data=st.data(), size=st.integers(0, 8))
def test_every_run_comes_after_what_it_needs(data, size):
    names = [f"s{n}" for n in range(size)]
    runs = [
        SimpleNamespace(name=name, needs=tuple(data.draw(st.sets(st.sampled_from(names[:n])))) if n else ())
        for n, name in enumerate(names)
    ]
    ordered = [run.name for run in in_order(data.draw(st.permutations(runs)))]
    assert sorted(ordered) == names
    for run in runs:
        assert all(ordered.index(need) < ordered.index(run.name) for need in run.needs)


def test_a_circle_a_gap_and_a_double_are_told(resolved):
    with pytest.raises(ConfigError, match="circle: a, b"):
        in_order([resolved("c"), resolved("a", ["b"]), resolved("b", ["a"])])
    with pytest.raises(ConfigError, match="'a' needs 'indx'") as caught:
        in_order([resolved("a", ["indx"]), resolved("index")])
    assert "did you mean 'index'" in caught.value.fix
    with pytest.raises(ConfigError, match="two runs are named 'a'"):
        in_order([resolved("a"), resolved("a")])


def test_ids_keys_and_needs(resolved, tmp_path):
    plan = make_plan([resolved("corpus"), resolved("lsr", ["corpus"], lr=1)], tmp_path)
    corpus, lsr = plan.runs
    assert corpus.id == f"corpus-{corpus.key[:8]}"
    assert lsr.needs == {"corpus": corpus.id}
    assert plan.directory(lsr.id).path == tmp_path / lsr.id
    again = make_plan([resolved("corpus"), resolved("lsr", ["corpus"], lr=1)], tmp_path)
    assert [run.key for run in again.runs] == [run.key for run in plan.runs]


def test_a_change_upstream_changes_the_keys_below_and_no_others(resolved, tmp_path):
    def keys(lr):
        runs = [resolved("a", lr=lr), resolved("b", ["a"]), resolved("c", ["b"]), resolved("other")]
        return {run.name: run.key for run in make_plan(runs, tmp_path).runs}

    before, after = keys(1), keys(2)
    assert {name for name in before if before[name] != after[name]} == {"a", "b", "c"}


def test_an_input_counts_by_its_content(resolved, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("one")
    first = make_plan([resolved("a", inputs=[data])], tmp_path).runs[0]
    copy = tmp_path / "copy.jsonl"
    copy.write_text("one")
    assert make_plan([resolved("a", inputs=[copy])], tmp_path).runs[0].key == first.key
    data.write_text("two")
    assert make_plan([resolved("a", inputs=[data])], tmp_path).runs[0].key != first.key
    data.unlink()
    with pytest.raises(DataError, match="input not found"):
        make_plan([resolved("a", inputs=[data])], tmp_path)


def test_a_sweep_that_grows_keeps_the_directories_it_has(resolved, tmp_path):
    def sweep(rates):
        return make_plan([resolved(f"lsr.{n}", lr=lr) for n, lr in enumerate(rates)], tmp_path)

    small = sweep([1, 3])
    assert [run.id[:8] for run in small.runs] == ["lsr.000-", "lsr.001-"]
    for run in small.runs:
        plan_directory = small.directory(run.id)
        plan_directory.path.mkdir()
    grown = sweep([1, 2, 3])
    assert [run.id for run in grown.runs if run.hyper_parameters["lr"] != 2] == [run.id for run in small.runs]
    alone = make_plan([resolved("lsr", lr=3)], tmp_path)
    assert alone.runs[0].id == small.runs[1].id


def test_equal_runs_of_a_sweep_have_directories_of_their_own(resolved, tmp_path):
    def ids():
        return [
            run.id for run in make_plan([resolved("lsr.0", lr=1), resolved("lsr.1", lr=1)], tmp_path).runs
        ]

    (tmp_path / ids()[1]).mkdir()
    assert len(set(ids())) == 2


def test_a_plan_is_frozen_in_its_file(resolved, tmp_path):
    plan = make_plan([resolved("a"), resolved("b", ["a"], lr=1, swept={"lr": 1})], tmp_path, imports=["mine"])
    plan.save()
    read = read_plan(tmp_path)
    assert [run.entry() for run in read.runs] == [run.entry() for run in plan.runs]
    assert (read.source, read.versions, read.imports) == (plan.source, plan.versions, ("mine",))


def test_no_plan_and_a_damaged_one_are_told(tmp_path):
    with pytest.raises(RunError, match=r"no plan\.json"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        read_plan(tmp_path)


def test_names_of_runs(resolved, tmp_path):
    plan = make_plan([resolved("index")], tmp_path)
    assert plan.named("index") is plan.named(plan.runs[0].id)
    with pytest.raises(ConfigError, match="no run 'indx'"):
        plan.named("indx")


def test_the_worker_reads_absolute_paths(resolved, tmp_path):
    plan = make_plan([resolved("a"), resolved("b", ["a"])], tmp_path)
    run = plan.named("b")
    value = {"x": ["${stages.a}/model", 1, None], "y": "${stages.other}", "z": "${env:HOME}"}
    places = {name: str(plan.directory(run_id).outputs) for name, run_id in run.needs.items()}
    replaced = substitute(value, places)
    assert Path(replaced["x"][0]) == tmp_path / plan.runs[0].id / "outputs" / "model"
    assert replaced["x"][1:] == [1, None]
    assert (replaced["y"], replaced["z"]) == ("${stages.other}", "${env:HOME}")


def test_the_graph_as_mermaid(resolved, tmp_path):
    plan = make_plan([resolved("a"), resolved("b", ["a"])], tmp_path)
    text = mermaid(plan, {plan.runs[0].id: 'run: "x"'})
    assert text == 'flowchart TD\n  n0["a<br/>run: \'x\'"]\n  n1["b<br/>"]\n  n0 --> n1\n'
