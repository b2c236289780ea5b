"""``trainshed init`` and ``trainshed schema``."""

import json

import pytest
from click.testing import CliRunner

from trainshed.cli.init import command as init
from trainshed.cli.schema import command as schema
from trainshed.config.load import load_config
from trainshed.errors import ConfigError


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoked(command, *arguments):
        return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)

    return invoked


def test_init_writes_what_loads(invoke, tmp_path):
    result = invoke(init)
    assert result.exit_code == 0
    assert "trainshed plan trainshed.yaml" in result.output
    assert load_config(tmp_path / "trainshed.yaml").stages


def test_init_replaces_nothing_unasked(invoke, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mine\n")
    with pytest.raises(ConfigError) as caught:
        invoke(init, path)
    assert "--force" in (caught.value.fix or "")
    assert path.read_text() == "mine\n"
    assert invoke(init, path, "--template", "pretrain", "--force").exit_code == 0
    assert load_config(path).stages[-1].algorithms == ("pretrain",)


def test_init_with_an_unknown_template_writes_nothing(invoke, tmp_path):
    with pytest.raises(ConfigError, match="no template 'rga'"):
        invoke(init, tmp_path / "a.yaml", "--template", "rga")
    assert not list(tmp_path.iterdir())


def test_schema_is_printed_or_written(invoke, tmp_path):
    printed = json.loads(invoke(schema, "--algorithm", "lsr").output)
    assert "candidates" in printed["$defs"]["training"]["properties"]
    assert invoke(schema, "--algorithm", "lsr", "-o", tmp_path / "s.json").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
