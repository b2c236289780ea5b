"""A model and its tokenizer from the section ``model`` of a configuration.

Left out: architectures to build (see `trainers.pretrain`, which has the text to train a tokenizer on).
"""

from typing import Any

from transformers import PreTrainedTokenizerBase

from trainshed.config.schema import ModelSection
from trainshed.errors import ConfigError
from trainshed.models.causal_lm import LoraSettings, load_causal_lm


def lora_settings(section: ModelSection) -> LoraSettings | None:
    """Return the adapters that a section asks for, or None."""
    if not section.use_peft:
        return None
    return LoraSettings(
        r=section.lora_r,
        alpha=section.lora_alpha,
        dropout=section.lora_dropout,
        target_modules=tuple(section.lora_target_modules),
        use_dora=section.use_dora,
    )


def load_section(
    section: ModelSection, *, device: str = "cpu", seed: int = 0
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the model that a section names.

    Parameters
    ----------
    section
        With ``model_name_or_path``.
    device
        Where to put it.
    seed
        Decides the first weights of new adapters.

    Raises
    ------
    ConfigError
        When the section names no model.
    ModelError
        When it cannot be loaded.
    """
    if section.model_name_or_path is None:
        raise ConfigError(
            "no model is named",
            where="model.model_name_or_path",
            fix="a directory, a hub name, or ${stages.NAME} of a stage that trains one",
        )
    return load_causal_lm(
        section.model_name_or_path,
        dtype=section.dtype,
        device=device,
        attn_implementation=section.attn_implementation,
        lora=lora_settings(section),
        load_in_4bit=section.load_in_4bit,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        tokenizer=section.tokenizer_name_or_path,
        seed=seed,
    )
