"""Models from the section ``model``."""

import pytest

from trainshed.config.schema import ModelSection
from trainshed.errors import ConfigError
from trainshed.models.build import build_llama
from trainshed.models.causal_lm import LoraSettings, save_causal_lm
from trainshed.models.sections import load_section, lora_settings
from trainshed.models.tokenizers import train_byte_bpe


def test_adapters_as_the_section_says():
    assert lora_settings(ModelSection()) is None
    section = ModelSection(use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.0, use_dora=True)
    assert lora_settings(section) == LoraSettings(4, 8.0, 0.0, ("all-linear",), True)


def test_loads_what_it_names(tmp_path):
    tokenizer = train_byte_bpe(["text"], vocab_size=260)
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "max_length": 16}
    save_causal_lm(build_llama(tokenizer, seed=0, **shape), tokenizer, tmp_path)
    section = ModelSection(model_name_or_path=str(tmp_path), use_peft=True, lora_r=2)
    model, words = load_section(section)
    assert any("lora_" in name for name, _ in model.named_parameters())
    assert len(words) == 260


def test_a_section_without_a_name():
    with pytest.raises(ConfigError, match="model_name_or_path"):
        load_section(ModelSection())
