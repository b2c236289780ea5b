"""`trainshed run`: what is done again and what is not, and that nothing that happens to it is lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

SLOW = {"FAKE_PAUSE_S": "0.3"}


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_a_pipeline_runs_once(project, undisturbed):
    first = project.run_ok()
    assert project.trace() == ["corpus start", "first start at 0", "second start at 0", "aside start at 0"]
    assert "second went through 10 steps" in first.stdout
    assert project.weights() == undisturbed
    second = project.run_ok()
    assert project.trace() == []
    assert "nothing to do" in second.stdout
    assert second.stdout.count("outputs intact") == 4
    assert "second went through 10 steps" in second.stdout


def test_the_reports_are_gathered(project):
    project.run_ok()
    report = json.loads((project.output_dir / "report.json").read_text())
    assert {row["steps"] for row in report["runs"].values()} == {10}
    project.config.write_text("pipeline:\n  corpus: {stage: fake_source}\n  only: {stage: fake_train}\n")
    project.run_ok("--output-dir", "elsewhere")
    assert json.loads((project.path / "elsewhere" / "report.json").read_text())["steps"] == 10


def test_a_dry_run_writes_nothing(project):
    done = project.run_ok("--dry-run")
    assert "never run" in done.stdout
    assert not project.output_dir.exists()


def test_an_edited_configuration_runs_what_it_touches(project, undisturbed):
    project.run_ok()
    project.trace()
    done = project.run_ok("pipeline.second.data.max_train_samples=12")
    assert project.trace() == ["second start at 0"]
    assert "config data.max_train_samples 10 -> 12" in done.stdout
    project.run_ok()
    assert project.trace() == []
    assert project.weights() == undisturbed


def test_an_edited_input_file_runs_what_reads_it(project):
    rows = project.path / "rows.jsonl"
    rows.write_text("{}\n")
    where = f"pipeline.aside.data.dataset_name={rows}"
    project.run_ok(where)
    project.trace()
    project.run_ok(where)
    assert project.trace() == []
    rows.write_text("{}\n{}\n")
    done = project.run_ok(where)
    assert project.trace() == ["aside start at 0"]
    assert f"input {rows} changed" in done.stdout


@pytest.mark.parametrize("damage", ["delete", "tear", "flip"])
def test_damaged_outputs_are_made_again(project, undisturbed, damage):
    project.run_ok()
    project.trace()
    path = project.directory("first") / "outputs" / "model" / "weights.txt"
    if damage == "delete":
        path.unlink()
    elif damage == "tear":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(b"X" + path.read_bytes()[1:])
    done = project.run_ok()
    assert project.trace() == ["first start at 0"], "it made the same again, so what follows holds"
    assert ("outputs/model/weights.txt is " + ("missing" if damage == "delete" else "damaged")) in done.stdout
    assert project.weights() == undisturbed


def test_a_changed_program_makes_results_stale(project, tmp_path):
    project.run_ok()
    project.trace()
    copy = tmp_path / "changed"
    shutil.copytree(project.package, copy)
    project.package = copy
    with (copy / "trainshed" / "files.py").open("a") as file:
        file.write("\n# a comment\n")
    project.run_ok()
    assert project.trace() == []
    with (copy / "trainshed" / "files.py").open("a") as file:
        file.write("\nCHANGED = 1\n")
    assert "made by an older source, kept" in project.run_ok("--keep-stale").stdout
    assert project.trace() == []
    assert "the program changed" in project.run_ok().stdout
    assert len(project.trace()) == 4


def test_force_runs_a_stage_again(project):
    project.run_ok()
    project.trace()
    project.run_ok("--force", "first")
    assert project.trace() == ["first start at 0"]
    wrong = project("run", "p.yaml", "--force", "frist")
    assert wrong.returncode == 2
    assert "did you mean 'first'" in wrong.stderr


def progress(project):
    """How many lines the runs have written so far."""
    return sum(path.read_bytes().count(b"\n") for path in project.output_dir.glob("*/metrics.jsonl"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_random_points_it_ends_as_if_nothing_had_happened(project, undisturbed, jobs):
    rng = random.Random(jobs)
    kills = 0
    while kills < 20:
        process = project.start("run", "p.yaml", "--jobs", jobs, FAKE_PAUSE_S="0.02")
        target = progress(project) + rng.randint(6, 14)
        while process.poll() is None and progress(project) < target:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.03)
        if process.poll() is None:
            process.kill()
            kills += 1
        output = process.communicate()[0]
        if process.returncode == 0:
            break
        assert process.returncode in (-signal.SIGKILL, 1), output
        # a worker that lost its launcher saves a checkpoint and ends; the next launch may still find it
        assert process.returncode != 1 or "being run by process" in output, output
    assert process.returncode == 0, output
    assert kills >= 2
    assert project.weights() == undisturbed
    assert set(project.states().values()) == {"done"}
    project.trace()
    project.run_ok()
    assert project.trace() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stopped_run_saves_a_checkpoint_and_goes_on(project, undisturbed, jobs, number):
    process = project.start("run", "p.yaml", "--jobs", jobs, **SLOW)
    wait_for(lambda: list(project.output_dir.glob("first-*/checkpoints/00003.json")))
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + number, output
    assert "run the same command again to go on" in output
    assert project.states()["first"] == "interrupted"
    assert project.states()["second"] == "pending"
    saved = sorted(project.directory("first").glob("checkpoints/*.json"))
    step = json.loads(saved[-1].read_text())["step"]
    project.trace()
    done = project.run_ok("--jobs", jobs)
    assert "resume" in done.stdout
    assert f"first start at {step}" in project.trace()
    assert project.weights() == undisturbed
    rows = (project.directory("first") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 11))


def test_workers_run_side_by_side_and_keep_their_output_in_the_log(project, undisturbed):
    done = project.run_ok("--jobs", "2", "execution.threads=3")
    trace = project.trace()
    assert trace[0] == "corpus start"
    assert sorted(trace[1:3]) == ["aside start at 0", "first start at 0"]
    assert trace[3] == "second start at 0"
    assert "first starts at 0" not in done.stdout + done.stderr
    assert "first starts at 0, threads 3" in (project.directory("first") / "train.log").read_text()
    assert "first: done after" in done.stderr
    assert project.weights() == undisturbed


@pytest.mark.parametrize(
    ("kind", "told", "jobs"),
    [
        ("data", "the dataset is empty\n  where: rows.jsonl\n  fix:", 1),
        ("data", "the dataset is empty\n  where: rows.jsonl\n  fix:", 2),
        ("bug", "ZeroDivisionError: a bug", 1),
        ("disk", "the disk is full", 1),
    ],
)
def test_a_failure_is_told_recorded_and_gone_on_from(project, undisturbed, kind, told, jobs):
    done = project("run", "p.yaml", "--jobs", jobs, FAKE_FAIL=f"first:{kind}")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    log = (project.directory("first") / "train.log").read_text()
    assert "Traceback" in log
    runs = project.runs()
    assert runs["first"]["state"] == "failed"
    assert runs["second"]["state"] == "pending"
    assert runs["first"]["error"]["what"].startswith(told.split("\n")[0])
    assert "second: not run: it needs first, which failed" in done.stderr or "second" in done.stdout
    project.trace()
    project.run_ok()
    assert "first start at 9" in project.trace()
    assert project.weights() == undisturbed


def test_a_worker_that_is_killed_is_told(project, undisturbed):
    done = project("run", "p.yaml", "--jobs", "2", "--keep-going", FAKE_FAIL="first:kill")
    assert done.returncode == 137
    assert "first: killed by SIGKILL" in done.stderr
    states = project.states()
    assert (states["first"], states["second"], states["aside"]) == ("interrupted", "pending", "done")
    project.run_ok()
    assert project.weights() == undisturbed


def test_two_at_once_the_second_names_the_first(project, undisturbed):
    process = project.start("run", "p.yaml", **SLOW)
    wait_for(lambda: list(project.output_dir.glob("first-*/checkpoints/*.json")))
    other = project("run", "p.yaml")
    assert other.returncode == 1
    assert f"run already, by process {process.pid} on {os.uname().nodename}" in other.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    project.run_ok()
    assert project.weights() == undisturbed


def test_a_full_disk_leaves_the_last_complete_state(project, undisturbed):
    project.run_ok()
    before = (project.directory("first") / "outputs" / "model" / "weights.txt").read_text()
    done = project("run", "p.yaml", "execution.seed=4", FAKE_FAIL="corpus:disk")
    assert done.returncode == 1
    assert "the disk is full; what was complete before is still intact" in done.stderr
    assert "free some space" in done.stderr
    project.trace()
    project.run_ok()
    assert project.trace() == []
    assert (project.directory("first") / "outputs" / "model" / "weights.txt").read_text() == before


def test_nothing_to_do_imports_nothing_heavy(project):
    project.run_ok()
    script = (
        "import sys\nfrom trainshed.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    command = project.command("run", "p.yaml")
    command[1:3] = ["-c", script]
    done = subprocess.run(
        command, cwd=project.path, env=project.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
