"""``${env:NAME}`` and ``${stages.NAME}``."""

from pathlib import Path

import pytest

from trainshed.config.documents import Document
from trainshed.config.interpolation import fill_environment, interpolate, resolve_stage, stage_reference
from trainshed.config.problems import Problem, configuration_error


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("${stages.lsr}", ("lsr", "")),
        ("${stages.lsr}/", ("lsr", "")),
        ("${stages.a-b_2}/x/y z.json", ("a-b_2", "x/y z.json")),
        ("${stages.lsr}x", None),
        (" ${stages.lsr}", None),
        ("${stages.}", None),
        ("${env:HOME}", None),
        (3, None),
        (None, None),
    ],
)
def test_references_to_stages(text, reference):
    assert stage_reference(text) == reference


def test_stages_become_directories():
    outputs = {"a": Path("/runs/a/outputs")}
    assert resolve_stage("${stages.a}", outputs) == "/runs/a/outputs"
    assert resolve_stage("${stages.a}/model", outputs) == "/runs/a/outputs/model"
    assert resolve_stage("${stages.b}/model", outputs) == "${stages.b}/model"
    assert resolve_stage("plain", outputs) == "plain"


def test_the_environment_is_filled_in_anywhere_in_a_text():
    assert fill_environment("a${env:X}b${env:Y_1}${stages.s}", {"X": "1", "Y_1": "${env:X}"}) == (
        "a1b${env:X}${stages.s}"
    )
    with pytest.raises(KeyError):
        fill_environment("${env:X}", {})


def test_what_was_filled_in_is_remembered_by_its_path():
    data = {"s": {"k": "${env:X}", "l": ["${env:X}/y", "z"], "m": "plain", "n": 3}}
    templates, problems = interpolate(Document("c.yaml", data), {"X": "1"})
    assert data == {"s": {"k": "1", "l": ["1/y", "z"], "m": "plain", "n": 3}}
    assert templates == {("s", "k"): "${env:X}", ("s", "l", 0): "${env:X}/y"}
    assert problems == []


def test_problems_say_where():
    data = {"s": {"a": "${env:NONE}", "b": "${what}", "c": "x${stages.y}"}}
    document = Document("c.yaml", data, {("s", "b"): "c.yaml:4"})
    _, problems = interpolate(document, {})
    assert [(p.place, p.key) for p in problems] == [("c.yaml", "s.a"), ("c.yaml:4", "s.b"), ("c.yaml", "s.c")]
    error = configuration_error([*problems, problems[0], Problem("more", "c.yaml:9")])
    assert error.what.startswith("4 problems")
    assert error.what.count("\n- ") == 4
    assert "c.yaml:4, s.b" in error.what
