"""The JSON schema says what loading checks."""

import json

import pytest

from trainshed.config.fields import all_trainer_parameters, training_keys
from trainshed.config.json_schema import configuration_schema, schema_text
from trainshed.config.schema import SECTIONS
from trainshed.errors import UnknownNameError


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_key_is_described_and_no_other_is_allowed():
    schema = configuration_schema()
    for name, model in SECTIONS.items():
        section = schema["$defs"][name]
        assert section["additionalProperties"] is False
        assert set(model.model_fields) <= set(section["properties"])
        assert all(part["description"] for part in section["properties"].values())
    assert (
        schema["$defs"]["model"]["properties"]["d_model"]["description"] == "Another name for `hidden_size`."
    )
    assert set(schema["properties"]) >= {*SECTIONS, "training", "environment", "pipeline", "hyper_params"}
    assert schema["additionalProperties"] is False


def test_every_reference_leads_somewhere():
    schema = configuration_schema()
    found = set(references(schema))
    assert found == {f"#/$defs/{name}" for name in (*SECTIONS, "training", "environment", "stage")}


@pytest.mark.parametrize("algorithm", all_trainer_parameters())
def test_training_takes_the_keys_of_the_algorithm(algorithm):
    schema = configuration_schema(algorithm)
    parameters = all_trainer_parameters()[algorithm]
    assert set(schema["$defs"]["training"]["properties"]) == set(training_keys(parameters))
    assert schema["$defs"]["execution"]["properties"]["algorithm"]["anyOf"][0] == {"enum": [algorithm]}


def test_all_algorithms_together():
    together = set(configuration_schema()["$defs"]["training"]["properties"])
    assert together == {key for p in all_trainer_parameters().values() for key in training_keys(p)}


def test_values_may_be_lists_where_a_list_is_a_sweep():
    properties = configuration_schema("lsr")["$defs"]
    rate = properties["training"]["properties"]["learning_rate"]
    assert rate["anyOf"] == [
        {"type": "number"},
        {"type": "array", "items": {"type": "number"}, "minItems": 1},
    ]
    assert rate["default"] == 5e-5
    assert properties["training"]["properties"]["logging_steps"]["default"] == 10.0
    # a list where one is taken, a word for a list of one, a list of both
    modules = properties["model"]["properties"]["lora_target_modules"]["anyOf"]
    words = {"type": "array", "items": {"type": "string"}}
    assert modules[:2] == [words, {"type": "string"}]
    assert modules[2]["items"] == {"anyOf": [words, {"type": "string"}]}
    # one for the whole plan
    directory = properties["execution"]["properties"]["output_dir"]
    assert "array" not in json.dumps(directory)


def test_text_is_json_and_an_unknown_algorithm_is_told():
    assert json.loads(schema_text("ralt")) == configuration_schema("ralt")
    with pytest.raises(UnknownNameError, match="unknown algorithm 'rlat'"):
        configuration_schema("rlat")
