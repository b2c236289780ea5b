"""Plans of runs that a function executes."""

import pytest

from trainshed.config.resolved import ResolvedRun, RunConfig
from trainshed.plan.directory import RunDirectory
from trainshed.plan.graph import make_plan


class Executor:
    """Executes run directories as `trainshed execute` does, without work."""

    def __init__(self):
        self.done = []
        self.fail = {}
        self.text = {}

    def __call__(self, path):
        directory = RunDirectory(path)
        entry = directory.entry()
        name = entry["name"]
        self.done.append(name)
        print(f"{name} says hello")
        with directory.locked():
            upstream = {
                stage: RunDirectory(path.parent / run_id).status().outputs_digest()
                for stage, run_id in entry["needs"].items()
            }
            directory.start(upstream=upstream)
            error = self.fail.get(name)
            if isinstance(error, KeyboardInterrupt):
                directory.interrupt()
                return 130
            if error is not None:
                directory.fail(error)
                return 1
            (directory.outputs / "out.txt").write_text(self.text.get(name, name))
            directory.finish()
        return 0


@pytest.fixture
def executor():
    return Executor()


@pytest.fixture
def plan_of(tmp_path):
    """Makes a plan from names and what they need."""

    def make(**needs):
        runs = [
            ResolvedRun(name, "train", tuple(need), RunConfig(name, "train"), {"name": name}, {}, {}, ())
            for name, need in needs.items()
        ]
        return make_plan(runs, tmp_path / "out")

    return make


@pytest.fixture(autouse=True)
def same_program(monkeypatch):
    """The digest of the program costs time, and it may be edited while the tests run."""
    monkeypatch.setattr("trainshed.plan.graph.source_digest", lambda cache, extra: "0" * 32)
