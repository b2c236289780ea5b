"""What a classifier's training is made of: examples, model and task, as a configuration describes them.

Left out: the trainer (see `transformer`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainshed.config.schema import DataSection, ModelSection
from trainshed.config.trainers.transformer import TransformerParameters
from trainshed.data.labelled import (
    AnyExample,
    SpanExample,
    builtin_labelled,
    label_counts,
    label_names,
    read_splits,
    span_reader,
    text_reader,
    words_reader,
)
from trainshed.errors import ConfigError, DataError
from trainshed.models.build import bert_config
from trainshed.models.causal_lm import load_tokenizer
from trainshed.models.sections import lora_settings
from trainshed.models.seeds import derive_seed
from trainshed.models.task_models import Reading, add_task_lora, load_task_model, plain_attention, with_head
from trainshed.models.tokenizers import train_encoder_bpe
from trainshed.trainers.label_tasks import LabelTask, MultiLabelTask, class_weights
from trainshed.trainers.span_task import SpanTask
from trainshed.trainers.text_task import TextTask
from trainshed.trainers.word_task import WordTask

#: the encoder that is built where the section ``model`` does not say otherwise
DEFAULT_SHAPE: Mapping[str, int] = {
    "hidden_size": 128,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 512,
    "max_length": 512,
}
DEFAULT_VOCAB_SIZE = 4096


def read_examples(section: DataSection, own: TransformerParameters) -> dict[str, list[Any]]:
    """Return the examples of each split that a dataset has.

    Parameters
    ----------
    section
        Names the dataset, its splits and columns.
    own
        The task and its columns.

    Raises
    ------
    DataError
        When a row is malformed; names it.
    """
    columns = section.columns
    if section.dataset_name == "builtin":
        return _builtin(section, own)
    text = columns.get("text", own.text_column)
    label = columns.get("label", own.label_column)
    splits: dict[str, list[Any]]
    if own.task == "token":
        splits = {**read_splits(section, words_reader(words=text, label=label))}
    elif own.task == "extractive_qa":
        splits = {**read_splits(section, span_reader(columns))}
    else:
        read = text_reader(
            text=text,
            label=label,
            pair=own.text_pair_column,
            several=own.task == "multi_label",
        )
        splits = {**read_splits(section, read)}
    return splits


def _builtin(section: DataSection, own: TransformerParameters) -> dict[str, list[Any]]:
    if own.task != "single_label":
        raise DataError(
            f"the built-in corpus has no labels for the task {own.task}",
            where="data.dataset_name",
            fix="task: single_label, or a dataset of your own",
        )
    limits = {"train": section.max_train_samples, "validation": section.max_eval_samples}
    return {split: found[: limits.get(split)] for split, found in builtin_labelled().items()}


def make_reading(own: TransformerParameters) -> Reading:
    """Return how texts are read."""
    chunked = own.long_documents == "chunk" or own.task in ("token", "extractive_qa")
    return Reading(
        task=own.task,
        max_length=own.max_length,
        overlap=own.overlap if chunked else None,
        max_chunks=own.max_chunks,
        pooling=own.chunk_pooling,
        max_answer_tokens=own.max_answer_tokens,
    )


def make_model(
    section: ModelSection,
    own: TransformerParameters,
    train: Sequence[AnyExample],
    *,
    seed: int,
    device: str = "cpu",
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the model that a section names, or build it, with a head for the labels of the training data.

    Parameters
    ----------
    section
        Names a model or its shape; what it leaves open is `DEFAULT_SHAPE`.
    own
        The task.
    train
        Gives the labels, and the text to train a tokenizer on.
    seed
        Of the run.
    device
        Where it will be trained.

    Raises
    ------
    ConfigError
        When ``num_labels`` is not what the data has.
    """
    labels = _checked_labels(section, own, train)
    weights = derive_seed(seed, "transformer", "weights")
    if section.model_name_or_path is not None:
        model, tokenizer = load_task_model(section, task=own.task, labels=labels, seed=weights, device=device)
    else:
        model, tokenizer = _built(section, own, train, labels, weights)
        attention = section.attn_implementation or plain_attention(device)
        if attention:
            model.set_attn_implementation(attention)
    lora = lora_settings(section)
    if lora:
        model = add_task_lora(model, lora, task=own.task, seed=derive_seed(seed, "transformer", "adapters"))
    return model, tokenizer


def _built(
    section: ModelSection,
    own: TransformerParameters,
    train: Sequence[AnyExample],
    labels: Sequence[str],
    seed: int,
) -> tuple[Any, PreTrainedTokenizerBase]:
    if section.tokenizer_name_or_path is not None:
        tokenizer = load_tokenizer(section.tokenizer_name_or_path)
    else:
        texts = [example.group for example in train]
        texts += [example.question for example in train if isinstance(example, SpanExample)]
        tokenizer = train_encoder_bpe(texts, vocab_size=section.vocab_size or DEFAULT_VOCAB_SIZE)
    shape = {name: getattr(section, name) or default for name, default in DEFAULT_SHAPE.items()}
    if section.max_length is None:
        shape["max_length"] = max(shape["max_length"], own.max_length)
    if section.hidden_size and not section.intermediate_size:
        shape["intermediate_size"] = section.hidden_size * 4
    config = bert_config(tokenizer, **shape)
    model = with_head(config, task=own.task, labels=labels, seed=seed)
    return model, tokenizer


def _checked_labels(
    section: ModelSection, own: TransformerParameters, train: Sequence[AnyExample]
) -> tuple[str, ...]:
    if own.task == "extractive_qa":
        return ()
    labels = label_names(example for example in train if not isinstance(example, SpanExample))
    given = section.num_labels
    shown = ", ".join(labels[:10]) + (" …" if len(labels) > 10 else "")
    if given is not None and given != len(labels):
        raise ConfigError(
            f"model.num_labels is {given}, but the training data has {len(labels)} labels: {shown}",
            where="model.num_labels",
            fix=f"num_labels: {len(labels)}, or leave it out",
        )
    if len(labels) < 2 and own.task != "multi_label":
        raise DataError(
            f"the training data has {len(labels)} label{'' if len(labels) == 1 else 's'}: {shown}",
            where="data.dataset_name",
            fix="examples of at least two labels",
        )
    if not labels:
        raise DataError("no row of the training data has a label", where="data.dataset_name")
    return labels


def make_task(
    own: TransformerParameters,
    tokenizer: PreTrainedTokenizerBase,
    reading: Reading,
    names: Sequence[str],
    *,
    train: Sequence[Any],
) -> TextTask:
    """Return the task.

    Parameters
    ----------
    own
        Says which one, and its weights.
    tokenizer, reading, names
        As for `TextTask`.
    train
        Examples that weights are counted on.
    """
    if own.task == "extractive_qa":
        return SpanTask(tokenizer, reading, answerless=any(not example.answers for example in train))
    several = own.task == "multi_label"
    weights = class_weights(
        own.class_weights, names, label_counts(train), texts=len(train) if several else None
    )
    kinds = {"single_label": LabelTask, "multi_label": MultiLabelTask, "token": WordTask}
    kind: Any = kinds[own.task]
    return kind(tokenizer, reading, names, weights=weights, smoothing=own.label_smoothing)
