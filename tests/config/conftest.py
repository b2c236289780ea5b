"""What the tests of the configuration share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainshed.config.load import Config, check_source
from trainshed.config.parameters import TrainerParameters
from trainshed.config.sweep import expand
from trainshed.config.yaml_source import parse_yaml
from trainshed.registry import TRAINER_PARAMETERS


class DpoParameters(TrainerParameters):
    """Parameters of a preference trainer, as a plug-in would bring them."""

    reads: ClassVar[frozenset[str]] = frozenset({"model", "data"})

    beta: float = 0.1
    """Strength of the KL penalty."""
    reference_free: bool = False
    """Leave the reference model out."""


class KtoParameters(TrainerParameters):
    """Parameters of another one, with a key of its own."""

    desirable_weight: float = 1.0
    """Weight of desirable examples."""


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register `dpo` and `kto` for one test."""
    objects = {**TRAINER_PARAMETERS._objects, "dpo": DpoParameters, "kto": KtoParameters}
    monkeypatch.setattr(TRAINER_PARAMETERS, "_objects", objects)


@pytest.fixture
def load() -> Callable[..., Config]:
    """Load a configuration from text; the file is called ``c.yaml``."""

    def loaded(text: str, *overrides: str, environ: dict[str, str] | None = None, **options: Any) -> Config:
        return check_source(parse_yaml(text, "c.yaml"), overrides, environ=environ or {}, **options)

    return loaded


@pytest.fixture
def runs(load: Callable[..., Config]) -> Callable[..., list[Any]]:
    """Load a configuration from text and expand it."""
    return lambda *given, **options: expand(load(*given, **options))


@pytest.fixture(autouse=True)
def _in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep names in a configuration from being taken for what lies in the working directory."""
    monkeypatch.chdir(tmp_path)
