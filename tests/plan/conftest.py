"""Runs without a configuration file."""

import pytest

from trainshed.config.resolved import ResolvedRun, RunConfig


@pytest.fixture
def resolved():
    """Makes a resolved run without a configuration file."""

    def make(name, needs=(), *, inputs=(), swept=None, **hyper):
        return ResolvedRun(
            name=name,
            stage="train",
            needs=tuple(needs),
            config=RunConfig(name=name, stage="train"),
            hyper_parameters=hyper,
            settings={},
            swept=swept or {},
            inputs=tuple(str(path) for path in inputs),
        )

    return make


@pytest.fixture(autouse=True)
def same_program(monkeypatch):
    """The digest of the program costs time, and it may be edited while the tests run."""
    monkeypatch.setattr("trainshed.plan.graph.source_digest", lambda cache, extra: "0" * 32)
