"""Launching in this process: order, skipping, failures, locks. Workers are tested through the command."""

import pytest

from trainshed.errors import DataError, RunError
from trainshed.files import read_json
from trainshed.launch.contract import LaunchOptions
from trainshed.launch.local import launch
from trainshed.plan.locks import locked


def states(result):
    return {outcome.run.name: (outcome.action, outcome.state) for outcome in result.outcomes}


def test_runs_go_in_order_and_leave_a_frozen_plan(plan_of, executor, tmp_path):
    plan = plan_of(c=["b"], a=[], b=["a"])
    result = launch(plan, executor)
    assert executor.done == ["a", "b", "c"]
    assert result.exit_code == 0
    assert [run["name"] for run in read_json(tmp_path / "out" / "plan.json")["runs"]] == ["a", "b", "c"]
    entry = plan.directory(plan.named("c").id).entry()
    assert entry["key"] == plan.named("c").key
    assert entry["needs"] == {"b": plan.named("b").id}


def test_a_second_launch_skips_everything(plan_of, executor):
    plan = plan_of(a=[], b=["a"])
    launch(plan, executor)
    executor.done.clear()
    result = launch(plan, executor)
    assert executor.done == []
    assert states(result) == {"a": ("skip", "done"), "b": ("skip", "done")}
    assert result.exit_code == 0


def test_a_failure_stops_and_says_what_was_not_run(plan_of, executor, capsys):
    executor.fail["a"] = DataError("no rows")
    result = launch(plan_of(a=[], b=["a"], c=["b"], other=[]), executor)
    assert executor.done == ["a"]
    assert result.exit_code == 1
    reasons = {outcome.run.name: outcome.reason for outcome in result.outcomes}
    assert reasons["b"] == "it needs a, which failed"
    assert reasons["c"] == "it needs b, which was not run"
    assert reasons["other"].startswith("a failed (--keep-going")
    assert "b: not run: it needs a, which failed" in capsys.readouterr().err


def test_keep_going_runs_what_does_not_depend_on_the_failure(plan_of, executor):
    executor.fail["a"] = DataError("no rows")
    result = launch(plan_of(a=[], b=["a"], other=[]), executor, LaunchOptions(keep_going=True))
    assert executor.done == ["a", "other"]
    assert states(result)["b"] == ("none", "not run")
    assert result.exit_code == 1
    executor.fail.clear()
    executor.done.clear()
    assert launch(plan_of(a=[], b=["a"], other=[]), executor).exit_code == 0
    assert executor.done == ["a", "b"]


def test_an_interrupt_stops_the_launch(plan_of, executor):
    executor.fail["b"] = KeyboardInterrupt()
    result = launch(plan_of(a=[], b=["a"], c=["b"], other=[]), executor)
    assert executor.done == ["a", "b"]
    assert result.exit_code == 130
    assert result.interrupted == 2
    assert states(result) == {
        "a": ("run", "done"),
        "b": ("run", "interrupted"),
        "c": ("none", "not run"),
        "other": ("none", "not run"),
    }


def test_forced_upstream_with_other_outputs_runs_what_depends_on_it(plan_of, executor):
    plan = plan_of(a=[], b=["a"], c=["b"])
    launch(plan, executor)
    executor.done.clear()
    executor.text["a"] = "another"
    launch(plan, executor, LaunchOptions(force=[plan.named("a").id]))
    assert executor.done == ["a", "b"], "b left the same as before, so c holds"


def test_forced_upstream_with_equal_outputs_runs_nothing_more(plan_of, executor, capsys):
    plan = plan_of(a=[], b=["a"])
    launch(plan, executor)
    executor.done.clear()
    result = launch(plan, executor, LaunchOptions(force=[plan.named("a").id]))
    assert executor.done == ["a"]
    assert states(result) == {"a": ("rerun", "done"), "b": ("skip", "done")}
    assert "b: skipped: finished" in capsys.readouterr().err


def test_a_damaged_output_is_made_again(plan_of, executor):
    plan = plan_of(a=[], b=["a"])
    launch(plan, executor)
    executor.done.clear()
    (plan.directory(plan.named("a").id).outputs / "out.txt").write_text("torn")
    launch(plan, executor)
    assert executor.done == ["a"]


def test_what_a_run_prints_is_seen_and_kept(plan_of, executor, capsys):
    plan = plan_of(a=[])
    launch(plan, executor)
    assert "a says hello" in capsys.readouterr().out
    assert plan.directory(plan.runs[0].id).log_path.read_text() == "a says hello\n"


def test_two_launches_at_once(plan_of, executor, tmp_path):
    plan = plan_of(a=[])
    with (
        locked(tmp_path / "out" / ".launch.lock"),
        pytest.raises(RunError, match=r"run already, by process \d+"),
    ):
        launch(plan, executor)
    assert executor.done == []


def test_a_run_that_works_elsewhere_is_refused(plan_of, executor):
    plan = plan_of(a=[])
    with (
        plan.directory(plan.runs[0].id).locked(),
        pytest.raises(RunError, match=r"a is being run by process \d+ on"),
    ):
        launch(plan, executor)


def test_an_executor_that_claims_success_without_finishing_is_a_failure(plan_of):
    result = launch(plan_of(a=[]), lambda path: 0)
    assert result.exit_code == 1
    assert result.outcomes[0].state == "failed"


def test_too_many_threads_are_told_once_before_the_first_run_that_works(
    plan_of, executor, capsys, monkeypatch
):
    asked = []

    def crowding(configs, jobs):
        asked.append((len(configs), jobs))
        return "too many threads: set execution.threads: 1"

    monkeypatch.setattr("trainshed.launch.local.crowding_of", crowding)
    plan = plan_of(a=[], b=["a"])
    launch(plan, executor)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "execution.threads" in line] == told[:1]
    launch(plan, executor)
    assert "execution.threads" not in capsys.readouterr().err
    assert asked == [(2, 1)]


def test_the_threads_of_a_real_plan_are_counted(plan_of, executor, capsys, monkeypatch):
    monkeypatch.setattr("trainshed.launch.threads.usable_cpus", lambda: 1)
    monkeypatch.setattr("trainshed.launch.threads.core_count", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    launch(plan_of(a=[]), executor)
    assert "3 threads, usable CPUs: 1" in capsys.readouterr().err
