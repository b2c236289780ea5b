"""Exported models: what others load gives the same outputs."""

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tiny_language import make_model, make_tokenizer
from trainshed.cli.export import command
from trainshed.config.schema import ModelSection
from trainshed.errors import ModelError
from trainshed.models.causal_lm import LoraSettings, add_lora, save_causal_lm
from trainshed.models.exporting import export_model
from trainshed.models.reward_models import load_reward_model


@pytest.fixture
def base(tmp_path):
    save_causal_lm(make_model(), make_tokenizer(), tmp_path / "base")
    return tmp_path / "base"


def moved(model):
    """Give new adapters an effect."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return model.eval()


def logits(model):
    return model(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits.detach()


def test_adapters_are_merged(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    plain = logits(model)
    trained = moved(add_lora(model, LoraSettings(r=4)))
    expected = logits(trained)
    save_causal_lm(trained, make_tokenizer(), tmp_path / "adapters")
    done = export_model(tmp_path / "adapters", tmp_path / "out")
    assert done.merged
    assert done.deviation < 1e-4
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)
    assert (logits(loaded) - plain).abs().max() > 1e-3
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("n1")["input_ids"]


def test_adapters_of_a_reward_model_are_merged_with_its_head(base, tmp_path):
    section = ModelSection(model_name_or_path=str(base), use_peft=True, lora_r=4)
    model, tokenizer = load_reward_model(section, seed=1)
    trained = moved(model)
    expected = logits(trained)
    save_causal_lm(trained, tokenizer, tmp_path / "adapters")
    export_model(tmp_path / "adapters", tmp_path / "out")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.num_labels == 1
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)


def test_another_number_type(base, tmp_path):
    done = export_model(base, tmp_path / "out", dtype="bfloat16")
    assert not done.merged
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_a_model_without_adapters_is_copied(base, tmp_path):
    assert export_model(base, tmp_path / "out").deviation is None
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_what_holds_no_model(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        export_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_leaves_nothing(base, tmp_path):
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError):
        export_model(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(base, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(command, [str(base), str(out), "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    assert "converted" in done.output
    again = CliRunner().invoke(command, [str(base), str(out)])
    assert "the directory exists" in str(again.exception)
    assert CliRunner().invoke(command, [str(base), str(out), "--force"]).exit_code == 0
