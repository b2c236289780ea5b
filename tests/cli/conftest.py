"""A project directory with a pipeline of stages that cost nothing, and the command to run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainshed
from trainshed.cli.status import describe
from trainshed.plan.graph import read_plan
from trainshed.plan.keys import DigestCache, source_digest

PLUGIN = Path(__file__).with_name("fake_stages.py")
PIPELINE = """\
execution:
  seed: 3
data:
  max_train_samples: 10
pipeline:
  corpus:
    stage: fake_source
  first:
    stage: fake_train
    needs: [corpus]
  second:
    stage: fake_train
    needs: [first]
  aside:
    stage: fake_train
    needs: [corpus]
"""


class Project:
    """A directory, its configuration ``p.yaml``, and what was made of it."""

    def __init__(self, path, package):
        self.path, self.package = path, package
        self.config = path / "p.yaml"
        self.config.write_text(PIPELINE)
        self.output_dir = path / "outputs" / "p"

    def environment(self, **extra):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAKE_")}
        return {
            **clean,
            "PYTHONPATH": str(self.package),
            "FAKE_TRACE": str(self.path / "trace"),
            **extra,
        }

    def command(self, *arguments):
        if arguments[0] == "run" and "--dry-run" not in arguments and not self.output_dir.exists():
            # spare every test from hashing the program anew
            self.output_dir.mkdir(parents=True)
            shutil.copy(self.package / "digests.json", self.output_dir / ".digests.json")
        options = ["--import", str(PLUGIN)]
        return [sys.executable, "-m", "trainshed.cli.main", *options, *map(str, arguments)]

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments, **environment):
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run_ok(self, *arguments, **environment):
        done = self("run", "p.yaml", *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def runs(self):
        """Each run of the last plan by its name, as `trainshed status` tells it."""
        plan = read_plan(self.output_dir)
        return {run.name: describe(plan, run) for run in plan.runs}

    def states(self):
        return {name: run["state"] for name, run in self.runs().items()}

    def directory(self, name):
        plan = json.loads((self.output_dir / "plan.json").read_text())
        return self.output_dir / next(run["id"] for run in plan["runs"] if run["name"] == name)

    def weights(self):
        """What each training stage of the last plan ended with."""
        return {
            name: (self.directory(name) / "outputs" / "model" / "weights.txt").read_text()
            for name in ("first", "second", "aside")
        }

    def trace(self):
        """The executions since the last call: run and what it started at."""
        path = self.path / "trace"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.rpartition(" ")[0] for line in lines]


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """A copy of the package: one that is edited while the tests run would make results stale."""
    root = tmp_path_factory.mktemp("package")
    shutil.copytree(
        Path(trainshed.__file__).parent, root / "trainshed", ignore=shutil.ignore_patterns("__pycache__")
    )
    cache = DigestCache(root / "digests.json")
    source_digest(cache, [PLUGIN], root / "trainshed")
    cache.save()
    return root


@pytest.fixture
def project(tmp_path, package):
    return Project(tmp_path, package)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, package):
    """The weights of the pipeline when nothing happens to it."""
    project = Project(tmp_path_factory.mktemp("undisturbed"), package)
    project.run_ok()
    return project.weights()
