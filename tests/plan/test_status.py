"""What will happen to a run, and why."""

import dataclasses

import pytest

from trainshed.errors import DataError
from trainshed.plan.graph import make_plan
from trainshed.plan.status import decide, differences


def do(plan, name, *, text="x", end="done", checkpoint=False):
    """Execute a run as a worker would."""
    run = plan.named(name)
    directory = plan.directory(run.id)
    directory.freeze({**plan.worker_entry(run), "attempt": "a"}, {})
    upstream = {n: plan.directory(i).status().outputs_digest() for n, i in run.needs.items()}
    directory.start(upstream=upstream)
    if checkpoint:
        (directory.checkpoints / "1").write_text("state")
    (directory.outputs / "out.txt").write_text(text)
    if end == "done":
        directory.finish()
    elif end == "failed":
        directory.fail(DataError("no rows"))
    return directory


def told(plan, **options):
    return {d.run.name: (d.action, d.reason) for d in decide(plan, **options)}


@pytest.fixture
def chain(resolved, tmp_path):
    def make(**hyper):
        return make_plan([resolved("a", **hyper), resolved("b", ["a"])], tmp_path)

    return make


def test_a_new_plan_runs(chain):
    assert told(chain()) == {"a": ("run", "never run"), "b": ("run", "never run; upstream a will run")}


def test_what_is_done_is_skipped(chain):
    plan = chain()
    do(plan, "a")
    do(plan, "b")
    for action, reason in told(plan).values():
        assert action == "skip"
        assert reason.startswith("finished 20")
        assert reason.endswith("outputs intact")


def test_an_edited_configuration_names_key_and_values(chain):
    plan = chain(training={"learning_rate": 1e-5, "epochs": 1})
    do(plan, "a")
    do(plan, "b")
    changed = told(chain(training={"learning_rate": 3e-5, "epochs": 1}))
    assert changed["a"] == ("run", "config training.learning_rate 1e-05 -> 3e-05")
    assert changed["b"] == ("run", "upstream a is another")
    back = told(chain(training={"learning_rate": 1e-5, "epochs": 1}))
    assert back["a"][0] == back["b"][0] == "skip"


def test_many_differences_are_counted(chain):
    do(chain(**dict.fromkeys("pqrst", 1)), "a")
    reason = told(chain(**dict.fromkeys("pqrst", 2)))["a"][1]
    assert reason == "config p 1 -> 2, config q 1 -> 2, config r 1 -> 2 and 2 more"


def test_an_edited_input_is_named(resolved, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("one")

    def make():
        return make_plan([resolved("a", inputs=[data])], tmp_path / "out")

    do(make(), "a")
    assert told(make())["a"][0] == "skip"
    data.write_text("two")
    assert told(make())["a"] == ("run", f"input {data} changed")


def test_another_version_is_named(chain, monkeypatch):
    monkeypatch.setattr("trainshed.plan.graph.package_versions", lambda: {"torch": "2.12.0"})
    do(chain(), "a")
    monkeypatch.setattr("trainshed.plan.graph.package_versions", lambda: {"torch": "2.13.0"})
    assert told(chain())["a"] == ("run", "torch 2.12.0 -> 2.13.0")


def test_damaged_outputs_run_again_and_what_depends_on_them(chain):
    plan = chain()
    directory = do(plan, "a")
    do(plan, "b")
    (directory.outputs / "out.txt").write_text("xx")
    assert told(plan)["a"] == ("rerun", "outputs/out.txt is damaged: 2 bytes, not 1")
    assert told(plan)["b"] == ("rerun", "upstream a will run")
    (directory.outputs / "out.txt").unlink()
    assert told(plan)["a"] == ("rerun", "outputs/out.txt is missing")


def test_results_of_other_upstream_outputs_hold_no_longer(chain):
    plan = chain()
    do(plan, "a", text="one")
    do(plan, "b")
    do(plan, "a", text="two")
    assert told(plan)["a"][0] == "skip"
    assert told(plan)["b"] == ("rerun", "outputs of a changed")


def test_the_same_upstream_outputs_made_again_change_nothing(chain):
    plan = chain()
    do(plan, "a")
    do(plan, "b")
    do(plan, "a")
    assert told(plan)["b"][0] == "skip"


def test_a_changed_program_runs_again_unless_stale_results_are_kept(chain):
    plan = chain()
    do(plan, "a")
    changed = dataclasses.replace(plan, source="f" * 32)
    action, reason = told(changed)["a"]
    assert action == "rerun"
    assert reason.startswith("the program changed")
    action, reason = told(changed, keep_stale=True)["a"]
    assert action == "skip"
    assert "older source" in reason


def test_an_interrupted_run_goes_on_when_it_has_a_checkpoint(chain):
    plan = chain()
    do(plan, "a", end="killed")
    assert told(plan)["a"] == ("run", "interrupted; no checkpoint to go on from")
    do(plan, "a", end="killed", checkpoint=True)
    assert told(plan)["a"] == ("resume", "interrupted")
    changed = dataclasses.replace(plan, source="f" * 32)
    assert told(changed)["a"][0] == "run"
    assert told(changed, keep_stale=True)["a"][0] == "resume"


def test_a_failed_run_says_why_it_failed(chain):
    plan = chain()
    do(plan, "a", end="failed")
    assert told(plan)["a"] == ("run", "failed: no rows; no checkpoint to go on from")
    do(plan, "a", end="failed", checkpoint=True)
    assert told(plan)["a"] == ("resume", "failed: no rows")


def test_a_checkpoint_made_from_other_upstream_outputs_is_not_gone_on_from(chain):
    plan = chain()
    do(plan, "a", text="one")
    do(plan, "b", end="killed", checkpoint=True)
    assert told(plan)["b"][0] == "resume"
    do(plan, "a", text="two")
    assert told(plan)["b"] == ("run", "outputs of a changed")


def test_forced_runs_run(chain):
    plan = chain()
    do(plan, "a")
    do(plan, "b")
    forced = told(plan, force=[plan.named("b").id])
    assert forced["a"][0] == "skip"
    assert forced["b"] == ("rerun", "forced")


def test_a_run_that_works_now_is_told(chain):
    plan = chain()
    directory = do(plan, "a", end="killed")
    with directory.locked():
        action, reason = told(plan)["a"]
    assert action == "running"
    assert reason.startswith("being run by process ")


def test_a_damaged_status_runs_again(chain):
    plan = chain()
    do(plan, "a").status_path.write_text("{")
    assert told(plan)["a"][0] == "rerun"


def test_deciding_writes_nothing(chain, tmp_path):
    plan = chain()
    do(plan, "a")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    decide(plan)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_differences_of_nested_values():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": "x"}
    new = {"a": {"b": 2, "c": [1, 2]}, "new": None}
    assert differences(old, new) == [
        ("a.b", "1", "2"),
        ("gone", "x", "(not set)"),
        ("new", "(not set)", "null"),
    ]
