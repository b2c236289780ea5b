"""Rules that every section and every algorithm's parameters keep."""

import typing

import pytest
from pydantic import JsonValue, ValidationError

from trainshed.config.axes import annotation_depth, nullable, takes_scalars
from trainshed.config.fields import all_trainer_parameters
from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import (
    SECTIONS,
    DataSection,
    ExecutionSection,
    ModelSection,
    RagSection,
    StageEntry,
)
from trainshed.errors import ConfigError

CLASSES = {**SECTIONS, "stage": StageEntry, **all_trainer_parameters()}
FIELDS = [
    pytest.param(field, id=f"{owner}.{name}")
    for owner, model in CLASSES.items()
    for name, field in model.model_fields.items()
]


def parts(annotation):
    yield annotation
    for part in typing.get_args(annotation):
        yield from parts(part)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_a_docstring_that_is_a_sentence(field):
    assert field.description, "write a docstring under the field"
    assert field.description.rstrip().endswith("."), field.description


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_is_ambiguous_about_lists(field):
    """`T | list[T]` could be a value or a sweep, and so could anything."""
    annotation = field.annotation
    found = list(parts(annotation))
    assert typing.Any not in found
    assert object not in found
    if annotation_depth(annotation):
        assert not takes_scalars(annotation)
    assert JsonValue not in found or typing.get_origin(annotation) is dict


@pytest.mark.parametrize("field", FIELDS)
def test_null_means_the_default(field):
    """A null key is a key that is not set, so it must not mean anything else."""
    if nullable(field.annotation):
        assert field.get_default() is None


@pytest.mark.parametrize("model", CLASSES.values(), ids=CLASSES.keys())
def test_every_class_is_documented_and_closed_and_complete_without_values(model):
    assert model.__doc__
    assert model().model_dump(mode="json") is not None
    with pytest.raises(ValidationError):
        model.model_validate({"no_such_key": 1})


def test_defaults_of_sections_survive_json():
    for model in SECTIONS.values():
        assert model.model_validate(model().model_dump(mode="json")) == model()


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (ExecutionSection, {"output_dir": "runs"}, "is relative"),
        (ExecutionSection, {"seed": -1}, "greater than or equal to 0"),
        (ExecutionSection, {"device": "gpu"}, "match pattern"),
        (ExecutionSection, {"trackers": ["wandbb"]}, "unknown tracker"),
        (ModelSection, {"use_dora": True}, "use_peft: true"),
        (ModelSection, {"hidden_size": 30, "num_heads": 4}, "not a multiple"),
        (DataSection, {"chunk_tokens": 32, "chunk_overlap": 32}, "not below"),
        (RagSection, {"prompt": "{query}"}, "{context} once"),
        (RagSection, {"prompt": "{context}{query}{query}"}, "{query} once, it holds it 2 times"),
        (RagSection, {"store": "fais"}, "unknown store"),
        (RagSection, {"retrieval_temperature": 0}, "greater than 0"),
        (RagSection, {"retrieval_temperature": float("nan")}, "finite"),
    ],
)
def test_values_that_cannot_be_meant(model, values, message):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    assert message in str(caught.value)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert ExecutionSection(output_dir="~/runs").output_dir == "/home/someone/runs"


def test_an_algorithm_reads_whole_sections_or_single_keys():
    class Some(TrainerParameters):
        reads = frozenset({"model", "rag.prompt", "rag.top_k"})

    class All(TrainerParameters):
        reads = frozenset({"rag", "rag.prompt"})

    assert Some.sections_read() == {"model": None, "rag": frozenset({"prompt", "top_k"})}
    assert All.sections_read() == {"rag": None}


@pytest.mark.parametrize(
    ("name", "fix"), [("rag.promt", "rag.prompt"), ("rga", "rag"), ("rag.", ""), ("execution.seed", "")]
)
def test_an_algorithm_reads_only_what_there_is(name, fix):
    """A misspelt key would count for nothing, and the one that was meant would be missing."""
    with pytest.raises(ConfigError, match="there is no section or key") as caught:
        type("Wrong", (TrainerParameters,), {"reads": frozenset({"data", name}), "__module__": __name__})
    assert caught.value.where == "Wrong.reads"
    assert fix in (caught.value.fix or "")
