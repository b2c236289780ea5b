"""The JSON schema of a configuration, for editors and for reading.

It says what `load` checks, as far as JSON schema can: sections and their other names, keys with their
descriptions, types, and that a list of values is a sweep. Left out: what depends on other keys.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from trainshed.config.axes import takes_scalars
from trainshed.config.fields import all_trainer_parameters, canonical_algorithm, keys_of, training_keys
from trainshed.config.migrations import KEY_ALIASES, SECTION_ALIASES
from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import SECTIONS, Environment, StageEntry
from trainshed.registry import STAGES


def configuration_schema(algorithm: str | None = None) -> dict[str, Any]:
    """Return the JSON schema of a whole configuration.

    Parameters
    ----------
    algorithm
        Name of the trainer whose keys ``training`` takes; those of all of them when None.

    Raises
    ------
    UnknownNameError
        When no trainer has that name.
    """
    trainers = all_trainer_parameters()
    if algorithm is not None:
        name = canonical_algorithm(algorithm)
        trainers = {name: trainers[name]}
    sections = {name: _section(name) for name in SECTIONS}
    sections["execution"]["properties"]["algorithm"].update(_algorithms(list(trainers)))
    sections["training"] = _training(trainers)
    sections["environment"] = _environment()
    definitions = dict(sections)
    shared = {name: {"$ref": f"#/$defs/{name}"} for name in sections}
    for alias, native in SECTION_ALIASES.items():
        shared[alias] = {"$ref": f"#/$defs/{native}"}
    stage = _model_properties(StageEntry)
    stage["stage"]["enum"] = STAGES.names()
    definitions["stage"] = _object({**stage, **shared}, "A stage; its sections lie over the shared ones.")
    pipeline = {
        "type": "object",
        "description": "Named stages, each with sections of its own over the shared ones.",
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$"},
        "additionalProperties": {"$ref": "#/$defs/stage"},
        "minProperties": 1,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trainshed configuration",
        **_object({**shared, "pipeline": pipeline}, "What is trained, on what, and how."),
        "$defs": definitions,
    }


def schema_text(algorithm: str | None = None) -> str:
    """Return `configuration_schema` as indented JSON."""
    return json.dumps(configuration_schema(algorithm), indent=2, ensure_ascii=False) + "\n"


def _object(properties: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": " ".join(description.split()),
        "properties": dict(properties),
        "additionalProperties": False,
    }


_OURS = ("title", "setting", "whole_plan", "input")


def _model_properties(model: type[BaseModel]) -> dict[str, Any]:
    """Return the properties of a pydantic class, with the marks of this package taken out."""
    schema = model.model_json_schema()
    properties: dict[str, Any] = {}
    for name, part in schema["properties"].items():
        plain = _without_references(part, schema.get("$defs", {}))
        properties[name] = {k: v for k, v in plain.items() if k not in _OURS}
        properties[name]["description"] = " ".join(part["description"].split())
    return properties


def _without_references(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with what it refers to in place; JSON, which refers to itself, takes anything."""
    if isinstance(schema, dict):
        if "$ref" not in schema:
            return {key: _without_references(value, definitions) for key, value in schema.items()}
        found = definitions[schema["$ref"].rpartition("/")[2]]
        if "properties" not in found:
            return {}
        parts = {
            name: {k: v for k, v in _without_references(part, definitions).items() if k not in _OURS}
            for name, part in found["properties"].items()
        }
        return {
            **_object(parts, found.get("description", "")),
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    return [_without_references(item, definitions) for item in schema] if isinstance(schema, list) else schema


def _sweepable(part: Mapping[str, Any], annotation: Any, many: bool = True) -> dict[str, Any]:
    """Return the schema of a key that takes a list of its values too, and a word for a list of one."""
    about = {k: v for k, v in part.items() if k in ("description", "default")}
    value = {k: v for k, v in part.items() if k not in about}
    forms = [value]
    if not takes_scalars(annotation):
        items = value if "items" in value else next(v for v in value["anyOf"] if "items" in v)
        forms.append(items["items"])
    if many:
        one = {"anyOf": list(forms)} if len(forms) > 1 else value
        forms.append({"type": "array", "items": one, "minItems": 1})
    return {"anyOf": forms, **about}


def _section(name: str) -> dict[str, Any]:
    model = SECTIONS[name]
    specs = keys_of(model)
    properties = {
        key: _sweepable(part, specs[key].annotation, many=not specs[key].whole_plan)
        for key, part in _model_properties(model).items()
    }
    for alias, target in KEY_ALIASES.get(name, {}).items():
        section, _, key = target.partition(".")
        if section == name:
            properties[alias] = {**properties[key], "description": f"Another name for `{key}`."}
    return _object(properties, model.__doc__ or "")


def _training(trainers: Mapping[str, type[TrainerParameters]]) -> dict[str, Any]:
    """Return the keys of several trainers; where they differ about a key, it takes what any of them takes."""
    variants: dict[str, list[dict[str, Any]]] = {}
    for parameters in trainers.values():
        shown = training_keys(parameters)
        parts = {**_model_properties(parameters.table().model()), **_model_properties(parameters)}
        for key, spec in shown.items():
            part = {**parts[key]}
            if key in parameters.argument_defaults and key not in parameters.model_fields:
                part["default"] = parameters.argument_defaults[key]
            found = _sweepable(part, spec.annotation)
            if found not in variants.setdefault(key, []):
                variants[key].append(found)
    properties = {key: v[0] if len(v) == 1 else {"anyOf": v} for key, v in sorted(variants.items())}
    names = ", ".join(f"`{name}`" for name in trainers)
    return _object(properties, f"Parameters of the algorithm ({names}) and arguments of its trainer.")


def _environment() -> dict[str, Any]:
    schema = TypeAdapter(Environment).json_schema()
    return {
        **schema,
        "additionalProperties": {"type": ["string", "number"]},
        "description": "Environment variables for the workers; `${env:NAME}` takes one from here.",
    }


def _algorithms(names: list[str]) -> dict[str, Any]:
    one = {"enum": names}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
