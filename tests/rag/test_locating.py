"""Where a saved system lies: in a directory, a run or a plan; one error where there is none or several."""

import pytest

from trainshed.errors import ModelError, RunError
from trainshed.files import write_json
from trainshed.plan.graph import Plan, Run
from trainshed.rag.locating import find_system


@pytest.fixture
def plan_of(tmp_path):
    """Launches a plan: for each run its stage, its state, and whether it left a system."""

    def make(**runs):
        rows = tuple(Run(f"{name}-1", name, stage, {}, {}, {}, "key") for name, (stage, _, _) in runs.items())
        plan = Plan(rows, tmp_path / "plan")
        plan.save()
        for run in rows:
            _, state, left = runs[run.name]
            directory = plan.directory(run.id)
            if state != "pending":
                write_json(directory.entry_path, run.entry())
                write_json(directory.status_path, {"state": state})
            if left:
                write_json(directory.outputs / "system.json", {})
        return plan.output_dir

    return make


def test_a_directory_a_run_and_a_plan_lead_to_the_same(plan_of):
    plan = plan_of(train=("train", "done", False), report=("evaluate", "done", True))
    outputs = plan / "report-1" / "outputs"
    assert [find_system(path) for path in (plan, plan / "report-1", outputs)] == [outputs] * 3
    (plan / "plan.json").unlink()
    assert find_system(plan) == outputs


def test_what_an_earlier_configuration_left_does_not_count(plan_of):
    write_json(plan_of() / "report-0" / "outputs" / "system.json", {})
    plan = plan_of(report=("evaluate", "done", True))
    assert find_system(plan) == plan / "report-1" / "outputs"
    assert find_system(plan / "report-0") == plan / "report-0" / "outputs"


def test_several_are_named_and_none_is_taken(plan_of):
    plan = plan_of(one=("evaluate", "done", True), two=("evaluate", "done", True))
    with pytest.raises(ModelError, match="2 RAG systems") as caught:
        find_system(plan)
    assert caught.value.where == str(plan)
    assert caught.value.fix == f"one of {plan / 'one-1'}, {plan / 'two-1'}"


def test_of_two_only_one_is_done(plan_of):
    plan = plan_of(one=("evaluate", "failed", True), two=("evaluate", "done", True))
    assert find_system(plan) == plan / "two-1" / "outputs"


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_run_that_is_not_done_has_no_system_yet(plan_of, state):
    plan = plan_of(report=("evaluate", state, True), other=("evaluate", "pending", False))
    with pytest.raises(ModelError, match=f"report is {state}, other is pending") as caught:
        find_system(plan)
    assert "trainshed run" in caught.value.fix
    with pytest.raises(ModelError, match=f"this run has not left a RAG system: it is {state}") as caught:
        find_system(plan / "report-1")
    assert caught.value.where == str(plan / "report-1")
    assert "trainshed run" in caught.value.fix


def test_what_leaves_no_system_says_what_would(plan_of, tmp_path):
    plan = plan_of(train=("train", "done", False))
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "file"
    file.write_text("")
    for path, what in (
        (plan, "no run of this plan leaves a RAG system"),
        (plan / "train-1", "this run left no RAG system: its stage is train"),
        (empty, "there is no RAG system here"),
        (file, "this is no directory"),
        (tmp_path / "none", "the directory does not exist"),
    ):
        with pytest.raises(ModelError, match=what) as caught:
            find_system(path)
        assert caught.value.where == str(path)
        assert "evaluate" in caught.value.fix


def test_a_damaged_plan_is_told(plan_of):
    plan = plan_of(report=("evaluate", "done", True))
    (plan / "plan.json").write_text("{")
    with pytest.raises(RunError, match=r"plan\.json is damaged"):
        find_system(plan)
