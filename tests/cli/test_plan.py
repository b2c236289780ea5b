"""`trainshed plan`: the table, JSON and Mermaid."""

import json


def test_the_plan_before_between_and_after(project):
    before = project("plan", "p.yaml")
    assert before.returncode == 0
    assert before.stdout.count("never run") == 4
    assert not project.output_dir.exists()
    project.run_ok()
    told = json.loads(project("plan", "p.yaml", "--json").stdout)
    assert told["output_dir"] == str(project.output_dir)
    assert {run["name"]: run["will"] for run in told["runs"]} == dict.fromkeys(
        ("corpus", "first", "second", "aside"), "skip"
    )
    forced = project("plan", "p.yaml", "--force", "first").stdout.splitlines()
    rows = {line.split("-")[0]: line for line in forced}
    assert "rerun  forced" in rows["first"]
    assert "upstream first will run" in rows["second"]
    assert "skip" in rows["aside"]


def test_the_graph(project):
    lines = project("plan", "p.yaml", "--graph").stdout.splitlines()
    assert lines[0] == "flowchart TD"
    assert '  n0["corpus<br/>run: never run"]' in lines
    assert "  n0 --> n1" in lines
