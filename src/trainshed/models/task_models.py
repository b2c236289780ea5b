"""Encoders with the head of a task: loaded or built, named after their labels, and saved.

A head that a checkpoint does not have begins with random weights of a seed. Only safetensors are read. Left
out: predicting (see `classifier`) and causal language models (see `causal_lm`).
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
)

from trainshed.config.schema import ModelSection
from trainshed.errors import ConfigError, ModelError
from trainshed.models.causal_lm import LOAD_ERRORS, LoraSettings, add_lora, allow_padding, load_tokenizer
from trainshed.models.encoders import DEFAULT_ENCODER, default_encoder_directory
from trainshed.models.model_files import check_model_directory, local_directory
from trainshed.models.pooling import Pooling
from trainshed.models.precision import resolve_device, resolve_dtype
from trainshed.models.quiet import no_library_bars, no_library_warnings

Task = Literal["single_label", "multi_label", "token", "extractive_qa"]
#: the library's class of a task, what PEFT calls it, and what a configuration's ``problem_type`` says
_KINDS: dict[str, tuple[Any, str, str | None]] = {
    "single_label": (AutoModelForSequenceClassification, "SEQ_CLS", "single_label_classification"),
    "multi_label": (AutoModelForSequenceClassification, "SEQ_CLS", "multi_label_classification"),
    "token": (AutoModelForTokenClassification, "TOKEN_CLS", None),
    "extractive_qa": (AutoModelForQuestionAnswering, "QUESTION_ANS", None),
}
#: key of ``config.json`` under which `Reading` lies
READING_KEY = "trainshed_reading"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model reads texts and what its logits mean; saved in its ``config.json``.

    Attributes
    ----------
    task
        What the head is for.
    max_length
        Tokens that are read at once.
    overlap
        Tokens that a chunk shares with the one before; None cuts longer texts.
    max_chunks
        Chunks of a text that are read.
    pooling
        How the chunks of a text become one prediction.
    temperature
        Divides the logits.
    max_answer_tokens
        Longest answer.
    """

    task: Task = "single_label"
    max_length: int = 128
    overlap: int | None = None
    max_chunks: int = 16
    pooling: Pooling = "logits"
    temperature: float = 1.0
    max_answer_tokens: int = 30

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Return what a model's configuration holds.

        Raises
        ------
        ModelError
            When it holds nothing of the kind, or keys that this version does not know.
        """
        found = getattr(config, READING_KEY, None)
        known = {item.name for item in fields(cls)}
        if not isinstance(found, dict) or not set(found) <= known:
            raise ModelError(
                "the model was not trained as a classifier here: its config.json does not say how it reads",
                where=READING_KEY,
                fix="give the outputs of a training with algorithm `transformer`",
            )
        return cls(**found)

    def store(self, config: Any) -> None:
        """Write it into a model's configuration."""
        setattr(config, READING_KEY, asdict(self))


def load_task_model(
    section: ModelSection, *, task: Task, labels: Sequence[str], seed: int = 0, device: str = "cpu"
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the encoder that a section names, with the head of a task, in evaluation mode.

    Parameters
    ----------
    section
        With ``model_name_or_path``: a directory, a hub name, or the default encoder's name.
    task
        What the head is for.
    labels
        Names of the labels; a checkpoint whose own labels are these in another order keeps that order.
    seed
        Decides the weights of a head that the checkpoint does not have.
    device
        Where it will be trained: on a CPU plain attention is chosen, which is faster there than the fused one
        on texts of some hundred tokens.

    Raises
    ------
    ConfigError
        When the section asks for what an encoder cannot have.
    ModelError
        When something is missing or damaged.
    """
    name = section.model_name_or_path or ""
    if section.load_in_4bit:
        raise ConfigError(
            "classifiers are not loaded in 4 bits", where="model.load_in_4bit", fix="leave it out"
        )
    path = default_encoder_directory() if name == DEFAULT_ENCODER else local_directory(name)
    if path is not None:
        check_model_directory(path)
    options: dict[str, Any] = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    kind, _, problem = _KINDS[task]
    try:
        config = AutoConfig.from_pretrained(str(path or name), **options)
        _name_labels(config, task, labels)
        config.problem_type = problem
        attention = section.attn_implementation or plain_attention(device)
        if attention:
            options["attn_implementation"] = attention
        with no_library_bars(), no_library_warnings(), torch.random.fork_rng():
            torch.manual_seed(seed)
            model, info = kind.from_pretrained(
                str(path or name),
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=resolve_dtype(section.dtype),
                **options,
            )
    except LOAD_ERRORS as error:
        raise ModelError(
            f"the model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(path or name),
            fix="give a directory of an encoder or a hub name that this machine can reach, "
            f"or {DEFAULT_ENCODER!r}",
        ) from error
    _check_body(model, info, str(path or name))
    tokenizer = load_tokenizer(section.tokenizer_name_or_path or str(path or name))
    allow_padding(tokenizer, model)
    return model.eval(), tokenizer


def plain_attention(device: str) -> str | None:
    """Return the name of plain attention for a CPU, None for devices where the model's own choice is best."""
    return "eager" if resolve_device(device).type == "cpu" else None


def task_class(task: Task) -> Any:
    """Return the library's auto class of a task."""
    return _KINDS[task][0]


def with_head(config: Any, *, task: Task, labels: Sequence[str], seed: int) -> Any:
    """Return a model of a configuration with random weights, in float32 and evaluation mode.

    Parameters
    ----------
    config
        Of any architecture that has the task.
    task, labels
        What the head is for.
    seed
        Decides the weights; the global random state is left as it was.
    """
    kind, _, config.problem_type = _KINDS[task]
    _name_labels(config, task, labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind.from_config(config).eval()


def add_task_lora(model: Any, lora: LoraSettings, *, task: Task, seed: int = 0) -> Any:
    """Return the model with new adapters; its head is trained as a whole."""
    return add_lora(model, lora, seed=seed, task_type=_KINDS[task][1])


def save_task_model(model: Any, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write a directory that the library's auto class of the task loads.

    Adapters are merged into the weights, and lie by themselves in ``adapters/``.
    """
    with no_library_bars():
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(str(path / "adapters"))
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))


def longest_input(model: Any) -> int | None:
    """Return how many tokens a model reads at most; None when its configuration does not say."""
    config = model.config
    limit = getattr(config, "max_position_embeddings", None)
    # RoBERTa's positions begin after the padding token's
    offset = (config.pad_token_id or 0) + 1 if "roberta" in str(config.model_type) else 0
    return limit - offset if limit and limit > 0 else None


def _name_labels(config: Any, task: Task, labels: Sequence[str]) -> None:
    if task == "extractive_qa":
        config.num_labels = 2  # a score for each token to begin and to end the answer
        return
    own = list((config.id2label or {}).values())
    names = own if sorted(own) == sorted(labels) else list(labels)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}


def _check_body(model: Any, info: Any, where: str) -> None:
    """Raise when weights other than those of the head are missing or of another shape."""
    body = f"{model.base_model_prefix}."
    wrong = [*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])]
    # pre-training without its own pooler leaves that one out; it is a part of the head then
    wrong = sorted(key for key in wrong if key.startswith(body) and "pooler" not in key)
    if wrong:
        raise ModelError(
            f"{len(wrong)} of the encoder's weights are missing or of another shape, such as {wrong[0]}",
            where=where,
            fix="give weights that fit config.json",
        )
