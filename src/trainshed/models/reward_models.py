"""Reward models: sequence classifiers with one label. Left out: training them (see `trainers.reward`)."""

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from trainshed.config.schema import ModelSection
from trainshed.errors import ConfigError, ModelError
from trainshed.models.causal_lm import LOAD_ERRORS, add_lora, allow_padding, load_tokenizer
from trainshed.models.model_files import check_model_directory, local_directory
from trainshed.models.precision import resolve_dtype
from trainshed.models.quiet import no_library_bars
from trainshed.models.sections import lora_settings


def load_reward_model(section: ModelSection, *, seed: int = 0) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the reward model that a section names, or make one of the language model that it names.

    Parameters
    ----------
    section
        With ``model_name_or_path``.
    seed
        Decides the first weights of a new head and of adapters; the global random state is left as it was.

    Returns
    -------
    tuple
        A sequence classifier with one label, in evaluation mode, and its tokenizer, which can pad.

    Raises
    ------
    ConfigError
        When the section names no model.
    ModelError
        When it cannot be loaded, or has several labels.
    """
    name = section.model_name_or_path
    if name is None:
        raise ConfigError(
            "no model is named", where="model.model_name_or_path", fix="a directory or hub name"
        )
    path = local_directory(name)
    if path is not None:
        check_model_directory(path)
    options: dict[str, Any] = {"dtype": resolve_dtype(section.dtype), "revision": section.revision}
    if section.attn_implementation:
        options["attn_implementation"] = section.attn_implementation
    try:
        with no_library_bars(), torch.random.fork_rng():
            torch.manual_seed(seed)
            model: Any = AutoModelForSequenceClassification.from_pretrained(
                str(path or name),
                num_labels=1,
                use_safetensors=True,
                trust_remote_code=section.trust_remote_code,
                **options,
            )
    except LOAD_ERRORS as error:
        raise ModelError(
            f"the model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(path or name),
            fix="give a language model, or a sequence classifier with one label",
        ) from error
    tokenizer = load_tokenizer(section.tokenizer_name_or_path or name, revision=section.revision)
    allow_padding(tokenizer, model)
    lora = lora_settings(section)
    if lora is not None:
        model = add_lora(model, lora, seed=seed, task_type="SEQ_CLS")
    return model.eval(), tokenizer
