"""Commented example configurations, written from the schema so that they cannot differ from it.

What a template sets stands there as a key; every other key stands behind a ``#`` with its default. Left out:
the tuned configurations, which are files in ``examples/``.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainshed.config.fields import keys_of, training_keys
from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import SECTIONS
from trainshed.errors import ConfigError, did_you_mean
from trainshed.registry import TRAINER_PARAMETERS

_WIDTH = 100
_PLAIN = re.compile(r"(?!(?i:true|false|null)$)[A-Za-z][A-Za-z0-9_./-]*")

#: arguments of `transformers.TrainingArguments` that most people look for; `trainshed schema` lists all
COMMON_ARGUMENTS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "weight_decay",
    "max_grad_norm",
    "bf16",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "load_best_model_at_end",
    "metric_for_best_model",
    "logging_steps",
)

_SMALL_MODEL = {
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 4,
    "intermediate_size": 768,
    "vocab_size": 8192,
    "max_length": 512,
}
_CORPUS = {"stage": "corpus", "data": {"dataset_name": "builtin"}}
_INDEX = {"stage": "index"}
_BASE = {
    "execution": {"algorithm": "pretrain"},
    "data": {"dataset_name": "${stages.corpus}/pretraining"},
    "model": _SMALL_MODEL,
    "training": {"learning_rate": 1e-3, "num_train_epochs": 1.0, "per_device_train_batch_size": 16},
}
_STORE = "${stages.index}/knowledge_store"
_INDEXED = {"retriever": "${stages.index}/retriever", "knowledge_store": _STORE}
_LSR = {
    "execution": {"algorithm": "lsr"},
    "model": {"model_name_or_path": "${stages.base}"},
    "rag": _INDEXED,
    "training": {"learning_rate": 5e-5, "num_train_epochs": 1.0, "per_device_train_batch_size": 16},
}
_RALT = {
    "execution": {"algorithm": "ralt"},
    "model": {"model_name_or_path": "${stages.base}"},
    "rag": _INDEXED,
    "training": {"learning_rate": 2e-4, "num_train_epochs": 1.0, "per_device_train_batch_size": 8},
}
_RAG = {
    "execution": {"algorithm": "rag"},
    "model": {"model_name_or_path": "${stages.base}"},
    "rag": _INDEXED,
    "training": {"mode": "both", "learning_rate": 5e-5, "per_device_train_batch_size": 8},
}


def _report(generator: str, retriever: str, **baselines: str) -> dict[str, Any]:
    return {
        "stage": "evaluate",
        "model": {"model_name_or_path": generator},
        "rag": {"retriever": retriever, "knowledge_store": _STORE},
        "evaluation": baselines,
    }


_BEFORE = {"baseline_retriever": "${stages.index}/retriever", "baseline_generator": "${stages.base}"}
_PREPARED: Mapping[str, Mapping[str, Any]] = {"corpus": _CORPUS, "base": _BASE, "index": _INDEX}


@dataclass(frozen=True)
class Template:
    """What an example is about and what it sets.

    Parameters
    ----------
    about
        First lines of the file.
    algorithm
        What it is mainly for.
    pipeline
        Its stages.
    """

    about: str
    algorithm: str
    pipeline: Mapping[str, Mapping[str, Any]]


_OWN_PARTS = (
    "For your own data set data.dataset_name and data.documents of stage `corpus`, for your own generator "
    "model.model_name_or_path of stage `{}` (then the stage `base` can go)."
)

TEMPLATES: Mapping[str, Template] = {
    "rag": Template(
        f"Train a retriever and a generator in turns, on the built-in corpus. {_OWN_PARTS.format('rag')}",
        "rag",
        {
            **_PREPARED,
            "rag": _RAG,
            "report": _report("${stages.rag}/generator", "${stages.rag}/retriever", **_BEFORE),
        },
    ),
    "lsr": Template(
        "Train a retriever on what helps a generator (LSR), on the built-in corpus. "
        + _OWN_PARTS.format("lsr"),
        "lsr",
        {
            **_PREPARED,
            "lsr": _LSR,
            "report": _report(
                "${stages.base}", "${stages.lsr}/retriever", baseline_retriever=_BEFORE["baseline_retriever"]
            ),
        },
    ),
    "ralt": Template(
        "Train a generator to answer from retrieved passages (RALT), on the built-in corpus. "
        + _OWN_PARTS.format("ralt"),
        "ralt",
        {
            **_PREPARED,
            "ralt": _RALT,
            "report": _report(
                "${stages.ralt}",
                "${stages.index}/retriever",
                baseline_generator=_BEFORE["baseline_generator"],
            ),
        },
    ),
    "pretrain": Template(
        "Train a small language model from scratch, on the built-in corpus. For your own text set "
        "data.dataset_name of stage `pretrain` (then the stage `corpus` can go).",
        "pretrain",
        {"corpus": _CORPUS, "pretrain": _BASE},
    ),
}


def example(template: str) -> str:
    """Return a commented configuration.

    Parameters
    ----------
    template
        A name in `TEMPLATES`.

    Raises
    ------
    ConfigError
        When there is no such template.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"there is no template {template!r}", fix=did_you_mean(template, TEMPLATES))
    chosen = TEMPLATES[template]
    lines = [f"# {line}" for line in textwrap.wrap(chosen.about, _WIDTH - 2)]
    lines += [
        "#",
        "# A key behind a `#` stands at its default. A list of values makes a run for each of them;",
        "# `${stages.NAME}` is where a stage left its outputs, `${env:NAME}` an environment variable.",
        "",
    ]
    given: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    given["data"]["dataset_name"] = "${stages.corpus}"
    parameters: type[TrainerParameters] = TRAINER_PARAMETERS.get(chosen.algorithm)
    shared = {"execution", *parameters.sections_read()}
    if any(entry.get("stage") == "evaluate" for entry in chosen.pipeline.values()):
        shared.add("evaluation")
    for name in SECTIONS:
        if name in shared:
            lines += [*_section(name, given[name], ""), ""]
    lines += ["# Environment variables of the workers.", "environment: {}", ""]
    lines += ["# Stages; the sections of a stage lie over the shared ones above.", "pipeline:"]
    for stage, entry in chosen.pipeline.items():
        lines += [f"  {stage}:", *_stage(entry)]
    return "\n".join(lines) + "\n"


def _stage(entry: Mapping[str, Any]) -> Iterator[str]:
    for section, values in entry.items():
        if section == "stage":
            yield f"    stage: {values}"
        elif section == "training":
            parameters = TRAINER_PARAMETERS.get(entry["execution"]["algorithm"])
            yield from _training(parameters, values, "    ")
        else:
            yield f"    {section}:"
            yield from (f"      {key}: {_text(value)}" for key, value in values.items())


def _section(name: str, given: Mapping[str, Any], indent: str) -> Iterator[str]:
    model = SECTIONS[name]
    yield from _comment(model.__doc__ or "", indent)
    yield f"{indent}{name}:"
    defaults = {key: field.get_default() for key, field in model.model_fields.items()}
    for key, spec in keys_of(model).items():
        yield from _key(key, spec.description, defaults[key], given, f"{indent}  ")


def _training(parameters: type[TrainerParameters], given: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield f"{indent}training:"
    fields = parameters.table().model().model_fields
    defaults = {key: field.get_default() for key, field in fields.items()}
    defaults.update(parameters.argument_defaults)
    defaults.update({key: field.get_default() for key, field in parameters.model_fields.items()})
    known = training_keys(parameters)
    for key in [*parameters.model_fields, *(key for key in COMMON_ARGUMENTS if key in known)]:
        yield from _key(key, known[key].description, defaults[key], given, f"{indent}  ")


def _key(key: str, about: str, default: Any, given: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield from _comment(about, indent)
    if key in given:
        yield f"{indent}{key}: {_text(given[key])}"
    else:
        yield f"{indent}#{key}: {_text(default)}"


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), _WIDTH - len(indent) - 2):
        yield f"{indent}# {line}"


def _text(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    if isinstance(value, TrainerParameters):
        return "{}"  # the parameters of another algorithm, all at their defaults
    return json.dumps(value, ensure_ascii=False)
