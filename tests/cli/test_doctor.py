"""`trainshed doctor`: what is there, what is missing."""

import pytest

from trainshed.cli import doctor
from trainshed.cli.main import main


def call(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


def test_a_machine_that_has_everything(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "constraints.txt").write_text("# pins\nclick==0.0.1\ntorch==2.13.0\n")
    code, out, error = call(capsys)
    assert code == 0, error
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["click"].endswith("constraints.txt has 0.0.1")
    assert "constraints.txt" not in lines["torch"]
    assert "cores" in lines["cpu"]
    assert "iB" in lines["memory"]
    assert "free at" in lines["disk"]
    assert "HF_HUB_OFFLINE" in lines["offline:"]
    assert "pip install 'trainshed[wandb]'" in lines["wandb"] or lines["wandb"].endswith("installed")
    assert "nothing required is missing" in out


def test_a_missing_package_is_an_error(capsys, monkeypatch):
    found = doctor.requirements()
    monkeypatch.setattr(doctor, "requirements", lambda: {**found, "": [*found[""], "no-such-package"]})
    code, out, error = call(capsys)
    assert code == 1
    assert "missing: no-such-package" in error
    assert "nothing required" not in out


def test_requirements_are_those_of_the_package():
    found = doctor.requirements()
    assert {"torch", "click", "transformers"} <= set(found[""])
    assert found["peft"] == ["peft"]
    assert "trainshed" not in found["all"]
