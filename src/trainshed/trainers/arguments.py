"""From what a user gives to `transformers.TrainingArguments`.

Some arguments are computed here (where checkpoints go, the seed, the device), some mean nothing to these
trainers and are refused rather than ignored. Left out: the table that a YAML is checked against (see
`config.arguments`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from trainshed.errors import ConfigError, did_you_mean
from trainshed.models.precision import resolve_device, resolve_dtype
from trainshed.registry import load_attribute

#: our defaults where the library's would not fit trainings of minutes; none of them decides what comes out
DEFAULTS: Mapping[str, Any] = {
    "dataloader_pin_memory": False,
    "log_level": "error",
    "logging_first_step": True,
    "logging_steps": 10,
    "save_steps": 0.1,
    "save_total_limit": 2,
}
#: arguments that these trainers have no use for: the value that may stand there, and what to do instead
_WITHOUT_USE: Mapping[str, tuple[Any, str]] = {
    "label_smoothing_factor": (0, "leave it out: the loss is the algorithm's own"),
    "length_column_name": ("length", "leave it out: lengths are known"),
    "batch_eval_metrics": (False, "leave it out: evaluation goes batch by batch anyway"),
    "push_to_hub": (False, "upload the outputs of the run afterwards"),
}
#: beginnings of names of arguments that do not decide what comes out
_SETTINGS: tuple[str, ...] = (
    *(
        "dataloader_num_",
        "dataloader_pers",
        "dataloader_pin",
        "dataloader_pre",
        "disable_tqdm",
        "eval_on_start",
    ),
    *("hub_", "log_", "logging_", "output_dir", "project", "report_to", "run_name", "save_", "trackio_"),
    "use_cpu",
)
_RANDOM = ("random", "sequential", "group_by_length")


def given_arguments(
    arguments: Mapping[str, Any] | TrainingArguments | None,
    kind: type[TrainingArguments] = TrainingArguments,
) -> dict[str, Any]:
    """Return the arguments that were given, as a dict; of an object, those that are not its defaults.

    Parameters
    ----------
    arguments
        A dict, or an object of ``kind`` or a class above it.
    kind
        The class that knows their names.

    Raises
    ------
    ConfigError
        When a name is unknown or an argument has no use here.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if isinstance(arguments, TrainingArguments):
        given = {
            name: getattr(arguments, name)
            for name, field in fields.items()
            if hasattr(arguments, name) and getattr(arguments, name) != _default(field)
        }
    else:
        given = dict(arguments or {})
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(
                f"unknown argument {name!r}", where="training", fix=did_you_mean(name, list(fields))
            )
        allowed, fix = _WITHOUT_USE.get(name, (value, "")) if kind is TrainingArguments else (value, "")
        if value != allowed:
            raise ConfigError(f"{name} has no use with this algorithm", where=f"training.{name}", fix=fix)
    strategy = given.get("train_sampling_strategy", "random")
    if getattr(strategy, "value", strategy) not in _RANDOM:
        raise ConfigError(
            f"unknown order {strategy!r} of examples",
            where="training.train_sampling_strategy",
            fix=f"one of {', '.join(_RANDOM)}",
        )
    return given


def wants_no_step(arguments: Mapping[str, Any]) -> bool:
    """Return whether the arguments ask for no step at all; the library takes 0 steps for "not set"."""
    steps, epochs = arguments.get("max_steps", -1), arguments.get("num_train_epochs", 3.0)
    return steps == 0 or (steps < 0 and epochs == 0)


def make_arguments(
    arguments: Mapping[str, Any],
    *,
    directory: Path,
    device: str,
    seed: int,
    kind: type[TrainingArguments] = TrainingArguments,
) -> TrainingArguments:
    """Return the library's arguments.

    Parameters
    ----------
    arguments
        What was given, over our defaults.
    directory
        Where checkpoints go.
    device
        As `TrainerSettings.device`.
    seed
        For what the library draws itself, such as dropout.
    kind
        Their class.

    Raises
    ------
    ConfigError
        When values do not fit together.
    """
    place = resolve_device(device)
    if place.index:
        raise ConfigError(
            f"training runs on the first visible GPU, not on {device}",
            where="execution.device",
            fix=f"set the environment variable CUDA_VISIBLE_DEVICES={place.index}, and device: cuda",
        )
    values = {**DEFAULTS, **arguments}
    values["bf16"] = uses_bf16(values, place)
    values |= {
        "output_dir": str(directory),
        "seed": seed,
        "use_cpu": place.type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # a loss that is no number stops the training here
        "restore_callback_states_from_checkpoint": True,
    }
    try:
        made = kind(**values)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"the arguments do not fit: {error}", where="training") from error
    made._n_gpu = min(1, made.n_gpu)  # several GPUs are for several processes, not for one
    return made


def uses_bf16(arguments: Mapping[str, Any], device: torch.device) -> bool:
    """Return whether matrix products are computed in bfloat16; ``auto`` where the device is made for it."""
    asked = arguments.get("bf16", False)
    if asked == "auto":
        return not arguments.get("fp16", False) and resolve_dtype("auto", device) == torch.bfloat16
    return bool(asked)


def deciding_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those given arguments that decide what comes out, as text, to recognise a training by."""
    return {
        name: str(getattr(value, "value", value))
        for name, value in sorted(arguments.items())
        if not name.startswith(_SETTINGS)
    }


def default_of(kind: str, name: str) -> Any:
    """Return what an argument of a class, ``"module:attribute"``, is when it is not given."""
    fields = {field.name: field for field in dataclasses.fields(load_attribute(kind))}
    return _default(fields[name])


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
