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
