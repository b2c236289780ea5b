"""Other names for sections and keys: those of other systems, and those that libraries dropped.

An alias is another name for the same thing and is taken silently. A dropped name is taken with a note where
a meaning is left, and refused with its replacement where not. What an algorithm calls so itself is left
alone. Left out: keys that are known under no name (`checking`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from trainshed.config.documents import Document, dotted
from trainshed.config.problems import Problem
from trainshed.config.yaml_source import KeyPath

SECTION_ALIASES: Mapping[str, str] = {
    "system": "execution",
    "model_config_args": "model",
    "rl_script_args": "data",
    "rl_config_args": "training",
    "hyper_params": "training",
}

KEY_ALIASES: Mapping[str, Mapping[str, str]] = {
    "execution": {"wandb_project": "execution.project"},
    "model": {
        "d_model": "model.hidden_size",
        "n_layers": "model.num_layers",
        "n_heads": "model.num_heads",
        "d_ff": "model.intermediate_size",
        "base_model": "model.model_name_or_path",
        "hidden_dim": "model.hidden_size",
        "model_revision": "model.revision",
        "embedding_model": "rag.retriever",
    },
    "data": {
        "dataset_train_split": "data.train_split",
        "dataset_test_split": "data.test_split",
        "documents_file": "data.documents",
    },
    "training": {
        "batch_size": "training.per_device_train_batch_size",
        "num_epochs": "training.num_train_epochs",
        "num_workers": "training.dataloader_num_workers",
        "clip_range_vf": "training.clip_range_value",
        "ent_coef": "training.entropy_coef",
        "hidden_dim": "model.hidden_size",
        "value_coef": "training.vf_coef",
    },
}


@dataclass(frozen=True)
class Dropped:
    """A name that a library no longer knows.

    Parameters
    ----------
    to
        ``section.key`` that means the same now, or ``""`` when nothing does.
    convert
        Turns the old value into the new one; None from it means that nothing needs to be said any more. It
        raises `ValueError` for a value that has no meaning left.
    fix
        What to write instead, when the name is refused.
    """

    to: str = ""
    convert: Callable[[Any], Any] = lambda value: value
    fix: str = ""


def _ratio(value: Any) -> Any:
    if isinstance(value, int | float) and not 0 <= value < 1:
        raise ValueError("a share of 1 or more would now be read as a number of steps")
    return value


def _only(wanted: Any, new: Any) -> Callable[[Any], Any]:
    """Return a conversion for a switch that means ``new`` when it is ``wanted``, and nothing otherwise."""
    return lambda value: new if value == wanted else None


def _trackers(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if "all" in names:
        raise ValueError("name the trackers one by one")
    return [name for name in names if name != "none"]


def _safetensors(value: Any) -> None:
    if value is False:
        raise ValueError("weights are always saved as safetensors")


def _ppo_alone(value: Any) -> None:
    if value != "ppo":
        raise ValueError(f"{value!r} is not there: the algorithm `rl` is PPO")


DROPPED: Mapping[str, Mapping[str, Dropped]] = {
    "execution": {"use_wandb": Dropped("execution.trackers", _only(True, ["wandb"]))},
    "model": {
        "torch_dtype": Dropped("model.dtype"),
        "use_flash_attention_2": Dropped("model.attn_implementation", _only(True, "flash_attention_2")),
        "load_in_8bit": Dropped(fix="model.load_in_4bit"),
        "policy_model": Dropped("execution.algorithm", _ppo_alone),
        "embedding_dim": Dropped(fix="leave it out: the retriever says how wide its embeddings are"),
    },
    "training": {
        "adafactor": Dropped("training.optim", _only(True, "adafactor")),
        "dispatch_batches": Dropped(fix="training.accelerator_config: {dispatch_batches: …}"),
        "evaluation_strategy": Dropped("training.eval_strategy"),
        "fp16_backend": Dropped(fix="training.fp16 or training.bf16; there is one backend left"),
        "fp16_opt_level": Dropped(fix="training.fp16 or training.bf16; Apex is gone"),
        "fsdp_min_num_params": Dropped(fix="training.fsdp_config: {min_num_params: …}"),
        "fsdp_transformer_layer_cls_to_wrap": Dropped(
            fix="training.fsdp_config: {transformer_layer_cls_to_wrap: …}"
        ),
        "group_by_length": Dropped("training.train_sampling_strategy", _only(True, "group_by_length")),
        "half_precision_backend": Dropped(fix="training.fp16 or training.bf16; there is one backend left"),
        "include_inputs_for_metrics": Dropped("training.include_for_metrics", _only(True, ["inputs"])),
        "include_tokens_per_second": Dropped(fix="training.include_num_input_tokens_seen: non_padding"),
        "jit_mode_eval": Dropped(fix="training.torch_compile"),
        "max_prompt_length": Dropped(
            fix="max_length, one bound for prompt and answer: in training, or in rag"
        ),
        "mixed_precision": Dropped("training.bf16", _only(True, True)),
        "model_init_kwargs": Dropped(fix="the keys of the section `model`"),
        "mp_parameters": Dropped(fix="training.fsdp_config"),
        "no_cuda": Dropped("execution.device", _only(True, "cpu")),
        "overwrite_output_dir": Dropped(
            fix="leave it out: a run goes on from where it is; another execution.output_dir makes a new one"
        ),
        "past_index": Dropped(fix="leave it out: it has no successor"),
        "per_gpu_eval_batch_size": Dropped("training.per_device_eval_batch_size"),
        "per_gpu_train_batch_size": Dropped("training.per_device_train_batch_size"),
        "processing_class": Dropped("model.tokenizer_name_or_path"),
        "push_to_hub_model_id": Dropped("training.hub_model_id"),
        "push_to_hub_organization": Dropped(fix="training.hub_model_id: organization/name"),
        "push_to_hub_token": Dropped("training.hub_token"),
        "ray_scope": Dropped(fix="a list of values: it makes a sweep"),
        "report_to": Dropped("execution.trackers", _trackers),
        "save_safetensors": Dropped("training.save_safetensors", _safetensors),
        "sharded_ddp": Dropped(fix="training.fsdp"),
        "split_batches": Dropped(fix="training.accelerator_config: {split_batches: …}"),
        "tokenizer": Dropped("model.tokenizer_name_or_path"),
        "torch_dtype": Dropped("model.dtype"),
        "torchdynamo": Dropped("training.torch_compile_backend"),
        "tpu_metrics_debug": Dropped(fix="training.debug: tpu_metrics_debug"),
        "tpu_num_cores": Dropped(fix="leave it out: the launcher counts the cores"),
        "use_cpu": Dropped("execution.device", _only(True, "cpu")),
        "use_ipex": Dropped(fix="leave it out: PyTorch has taken it in"),
        "use_legacy_prediction_loop": Dropped(fix="leave it out: it has no successor"),
        "use_mps_device": Dropped("execution.device", _only(True, "mps")),
        "warmup_ratio": Dropped("training.warmup_steps", _ratio),
        "xpu_backend": Dropped("training.ddp_backend"),
    },
}

#: keys whose values are gathered when several names give them, instead of being in each other's way
_GATHERED = frozenset({"execution.trackers"})


def migrate(document: Document, own_keys: Collection[str]) -> tuple[Document, list[str], list[Problem]]:
    """Return the document under native names only.

    Parameters
    ----------
    document
        As it was written.
    own_keys
        Keys of ``training`` that an algorithm in the document calls so itself.

    Returns
    -------
    tuple
        The new document, notes on dropped names for the user, and problems.
    """
    work = _Migration(document, own_keys)
    for section, content in document.data.items():
        if section == "pipeline" and isinstance(content, dict):
            work.copy((section,), {})
            for stage, entry in content.items():
                work.copy((section, stage), {} if isinstance(entry, dict) else entry)
                for inner, value in entry.items() if isinstance(entry, dict) else ():
                    work.section((section, stage), inner, value)
        else:
            work.section((), section, content)
    return work.result, work.notes, work.problems


class _Migration:
    """One pass over a document."""

    def __init__(self, document: Document, own_keys: Collection[str]) -> None:
        self.source, self.own_keys = document, own_keys
        self.result = Document(document.name)
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self._origin: dict[KeyPath, KeyPath] = {}

    def copy(self, path: KeyPath, value: Any) -> None:
        """Take a value over as it is."""
        self.result.put(path, value, {(): self.source.place(path)})

    def section(self, prefix: KeyPath, name: str, content: Any) -> None:
        """Take one section over, under its native name."""
        native = SECTION_ALIASES.get(name, name)
        path = (*prefix, name)
        if not isinstance(content, dict):
            self.result.put((*prefix, native), content, self.source.places_below(path))
            return
        if not isinstance(self.result.get((*prefix, native)), dict):
            # now, so that sections keep their order
            self.result.put((*prefix, native), {}, {(): self.source.place(path)})
        for key, value in content.items():
            self._key(prefix, native, (*path, key), value)

    def _key(self, prefix: KeyPath, section: str, old: KeyPath, value: Any) -> None:
        key = str(old[-1])
        mine = section == "training" and key in self.own_keys
        dropped = None if mine else DROPPED.get(section, {}).get(key)
        alias = None if mine else KEY_ALIASES.get(section, {}).get(key)
        if dropped is None:
            self._put((*prefix, *(alias or f"{section}.{key}").split(".")), old, value)
            return
        if value is None:
            return
        place, name = self.source.place(old), dotted(old)
        if not dropped.to:
            self.problems.append(
                Problem("the libraries no longer know this key", place, name, f"write instead: {dropped.fix}")
            )
            return
        try:
            new = _converted(value, dropped)
        except ValueError as error:
            self.problems.append(Problem(str(error), place, name, f"the key is now {dropped.to}"))
            return
        if new is None:
            self.notes.append(f"{place}: {name} is a dropped name and has no effect; leave it out")
        else:
            self.notes.append(f"{place}: {name} is a dropped name, read as {dropped.to}: {new}")
            self._put((*prefix, *dropped.to.split(".")), old, new)

    def _put(self, path: KeyPath, old: KeyPath, value: Any) -> None:
        before = self._origin.get(path)
        if before is not None:
            present = self.result.get(path)
            if dotted(path[-2:]) in _GATHERED and isinstance(present, list) and isinstance(value, list):
                value = [*present, *(item for item in value if item not in present)]
            else:
                first = f"{dotted(before)} ({self.source.place(before)})"
                self.problems.append(
                    Problem(
                        f"{dotted(path)} is set twice, the first time as {first}",
                        self.source.place(old),
                        dotted(old),
                        "keep one of them",
                    )
                )
                return
        self._origin[path] = old
        self.result.put(path, value, {(): self.source.place(old), **self.source.places_below(old)})


def _converted(value: Any, dropped: Dropped) -> Any:
    """Convert a value, or each value of a sweep where it is a list of switches or shares."""
    if isinstance(value, list) and dropped.convert is not _trackers:
        items = [dropped.convert(item) for item in value]
        return items if any(item is not None for item in items) else None
    return dropped.convert(value)
