"""What a launch says in the end."""

import pytest

from trainshed.launch.contract import LaunchOptions, LaunchResult, Outcome, prepare


@pytest.mark.parametrize(
    ("ends", "interrupted", "code"),
    [
        ([], None, 0),
        ([("done", 0), ("done", 0)], None, 0),
        ([("done", 0), ("failed", 2), ("failed", 1)], None, 2),
        ([("not run", 0), ("failed", 2)], None, 2),
        ([("not run", 0)], None, 1),
        ([("interrupted", 137), ("done", 0)], None, 137),
        ([("failed", 2), ("interrupted", 130)], 2, 130),
        ([("done", 0)], 15, 143),
    ],
)
def test_exit_codes(ends, interrupted, code):
    outcomes = [Outcome(None, "run", state, "", exit_code=number) for state, number in ends]
    assert LaunchResult(outcomes, interrupted).exit_code == code


def test_a_prepared_run_is_frozen_under_a_new_attempt_and_a_resumed_one_under_its_own(plan_of):
    plan = plan_of(a=[])
    run = plan.runs[0]
    directory = plan.directory(run.id)
    assert prepare(plan, run, LaunchOptions()).action == "run"
    first = directory.entry()["attempt"]
    assert prepare(plan, run, LaunchOptions()).action == "run"
    second = directory.entry()["attempt"]
    assert first != second
    directory.start()
    (directory.checkpoints / "1").mkdir()
    assert prepare(plan, run, LaunchOptions()).action == "resume"
    assert directory.entry()["attempt"] == second
    assert directory.same_attempt()
    assert prepare(plan, run, LaunchOptions(force=[run.id])).action == "run"
    assert not directory.same_attempt()


def test_the_worker_reads_a_configuration_with_absolute_paths(plan_of, executor, tmp_path):
    plan = plan_of(a=[])
    prepare(plan, plan.runs[0], LaunchOptions())
    config = plan.directory(plan.runs[0].id).config()
    assert config["name"] == "a"
    assert config["execution"]["seed"] == 0
