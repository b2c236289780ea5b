"""`trainshed status`: every state, and errors."""

import json


def test_states_progress_metrics_and_errors(project):
    project("run", "p.yaml", FAKE_FAIL="second:data")
    told = project("status", project.output_dir)
    assert told.returncode == 0
    rows = {line.split("-")[0]: line for line in told.stdout.splitlines() if "-" in line}
    assert "done" in rows["corpus"]
    assert "source/lines 3" in rows["corpus"]
    assert "10/10" in rows["first"]
    assert "pending" in rows["aside"]
    assert "the dataset is empty\n  where: rows.jsonl\n  fix: give one with rows" in told.stdout
    told = json.loads(project("status", project.output_dir, "--json").stdout)
    second = next(run for run in told["runs"] if run["name"] == "second")
    assert second["state"] == "failed"
    assert second["error"]["type"] == "DataError"
    assert second["metrics"] == {"train/loss": 0.1}


def test_a_damaged_status_does_not_hide_the_others(project):
    project.run_ok()
    (project.directory("first") / "status.json").write_text("{")
    states = project.states()
    assert states.pop("first") == "failed"
    assert set(states.values()) == {"done"}


def test_a_directory_without_a_plan_is_told(project):
    told = project("status", project.path)
    assert told.returncode == 1
    assert "no plan was launched here" in told.stderr
