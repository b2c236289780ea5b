"""The fields of third-party argument classes, from tables that ``scripts/generate_tables.py`` writes.

So the control plane checks them without importing torch. A field's type is written in a small language:
``bool``, ``int``, ``float``, ``str``, ``dict``, ``list[str]`` and the like, or several joined by ``|``;
beside it stand whether it may be null, and the words it takes when they are fixed. The table of a class that
derives from another holds what differs. Left out: which of them the program computes (`parameters`), and
names that the libraries dropped (`migrations`).
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

_TYPES: Mapping[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "dict": dict[str, JsonValue],
    "list[str]": list[str],
    "list[float]": list[float],
    "list[int]": list[int],
}

#: words that an argument takes here besides what its class takes
OUR_WORDS: Mapping[str, tuple[Any, ...]] = {"bf16": (Literal["auto"],)}

#: arguments that do not decide what is learnt; all others are part of a run's identity
SETTING_ARGUMENTS = frozenset(
    {
        "dataloader_multiprocessing_context",
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "dataset_num_proc",
        "ddp_backend",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "ddp_timeout",
        "debug",
        "disable_tqdm",
        "do_eval",
        "do_predict",
        "do_train",
        "enable_jit_checkpoint",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "include_for_metrics",
        "include_num_input_tokens_seen",
        "local_rank",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "output_dir",
        "project",
        "push_to_hub",
        "report_to",
        "restore_callback_states_from_checkpoint",
        "resume_from_checkpoint",
        "run_name",
        "save_on_each_node",
        "save_only_model",
        "save_total_limit",
        "skip_memory_metrics",
        "torch_empty_cache_steps",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        "use_cpu",
    }
)
# `save_steps`, `save_strategy`, `eval_steps` and `eval_strategy` are not among them: with
# `load_best_model_at_end` and early stopping they decide which weights come out.


@dataclass(frozen=True, slots=True)
class ArgumentField:
    """One field of a third-party argument class."""

    name: str
    type: str
    nullable: bool
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    setting: bool = False

    @property
    def annotation(self) -> Any:
        """The Python type that the written one stands for."""
        if self.choices:
            kind: Any = Literal[self.choices]
        else:
            kinds = [_TYPES[part] for part in self.type.split(" | ")]
            kind = Union[(*kinds, *OUR_WORDS.get(self.name, ()))]
        return kind | None if self.nullable else kind


@dataclass(frozen=True)
class ArgumentTable:
    """The fields of one third-party argument class, as they were in ``version`` of ``library``."""

    name: str
    library: str
    version: str
    fields: Mapping[str, ArgumentField]

    def model(self) -> type[BaseModel]:
        """Return a pydantic class with these fields and no others; always the same one."""
        return self._model

    @functools.cached_property
    def _model(self) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for field in self.fields.values():
            extra: dict[str, Any] = {"setting": True} if field.setting else {}
            info = Field(default=field.default, description=field.help, json_schema_extra=extra)
            fields[field.name] = (field.annotation, info)
        config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
        model: type[BaseModel] = create_model(self.name.rpartition(".")[2], __config__=config, **fields)
        return model


#: of an algorithm that takes only parameters of its own
NO_ARGUMENTS = ArgumentTable("none.NoArguments", "", "", {})


@functools.cache
def load_table(name: str) -> ArgumentTable:
    """Return the table of a class, such as ``transformers.TrainingArguments``."""
    content = json.loads((files("trainshed.config") / "tables" / f"{name}.json").read_text("utf-8"))
    fields = dict(load_table(content["extends"]).fields) if "extends" in content else {}
    for gone in content.get("without", ()):
        del fields[gone]
    for row in content["fields"]:
        fields[row["name"]] = ArgumentField(**{**row, "choices": tuple(row.get("choices", ()))})
    return ArgumentTable(name, content["library"], content["version"], fields)
