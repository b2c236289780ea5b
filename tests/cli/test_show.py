"""`trainshed show`: one run from its directory alone."""

from trainshed.cli.show import defaults_of
from trainshed.config.load import load_config
from trainshed.config.sweep import expand
from trainshed.plan.status import differences


def test_a_run_as_it_is_shown(project):
    project.run_ok()
    directory = project.directory("second")
    told = project("show", directory)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].startswith(f"{directory.name} (fake_train): done, step 10/10")
    assert "data.max_train_samples  10     null" in lines
    assert any(line.startswith("train/loss  1      0.1   0.1     1        █") for line in lines)
    assert any(line.startswith("model/weights.txt  128 B") for line in lines)
    assert lines[-1].startswith("second starts at 0")
    (directory / "outputs" / "report.txt").unlink()
    assert "damaged: outputs/report.txt is missing" in project("show", directory).stdout


def test_one_metric(project):
    project.run_ok()
    told = project("show", project.directory("first"), "--metric", "train/loss").stdout.splitlines()
    assert told[0].split() == ["step", "train/loss"]
    assert [line.split() for line in told[1:3]] == [["1", "1"], ["2", "0.5"]]
    assert len(told) == 13
    wrong = project("show", project.directory("first"), "--metric", "train/los")
    assert wrong.returncode == 1
    assert "did you mean 'train/loss'" in wrong.stderr


def test_a_failed_and_a_waiting_run(project):
    project("run", "p.yaml", FAKE_FAIL="first:bug")
    assert "error: ZeroDivisionError: a bug" in project("show", project.directory("first")).stdout
    wrong = project("show", project.path)
    assert wrong.returncode == 1
    assert "not a run directory" in wrong.stderr


def test_what_a_training_configuration_sets(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("execution: {algorithm: lsr, seed: 7}\ntraining: {learning_rate: 2.0e-5}\n")
    config = expand(load_config(path))[0].config.to_json()
    given = {name: config[name] for name in ("execution", "model", "data", "rag", "evaluation", "training")}
    rows = {name: new for name, _, new in differences(defaults_of(config), given)}
    assert rows["execution.seed"] == "7"
    assert rows["training.arguments.learning_rate"] == "2e-05"
    assert not [name for name in rows if name.startswith(("model", "rag", "training.own"))]
