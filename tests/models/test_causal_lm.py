"""Loading causal language models: adapters, padding, damage."""

import json

import pytest
import torch

from trainshed.errors import ModelError
from trainshed.models.build import build_llama
from trainshed.models.causal_lm import LoraSettings, load_causal_lm, save_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.models.tokenizers import train_byte_bpe


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    tokenizer = train_byte_bpe(["some text"], vocab_size=260)
    model = build_llama(
        tokenizer, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, max_length=64, seed=3
    )
    save_causal_lm(model, tokenizer, path)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    import shutil

    return shutil.copytree(saved, tmp_path / "copy")


IDS = torch.arange(2, 22).view(2, 10)


def test_round_trip(saved):
    model, tokenizer = load_causal_lm(str(saved))
    again, _ = load_causal_lm(str(saved), dtype="bfloat16", attn_implementation="eager")
    assert not model.training
    assert tokenizer.decode(tokenizer("some text")["input_ids"]) == "some text"
    assert again.dtype == torch.bfloat16
    assert again.config._attn_implementation == "eager"
    assert not list(saved.glob("*.bin"))


@pytest.mark.parametrize("use_dora", [False, True])
def test_adapters_start_as_nothing_and_come_back(saved, tmp_path, use_dora):
    plain, tokenizer = load_causal_lm(str(saved))
    settings = LoraSettings(r=4, use_dora=use_dora, dropout=0.0)
    model, _ = load_causal_lm(str(saved), lora=settings, seed=5)
    torch.testing.assert_close(model(input_ids=IDS).logits, plain(input_ids=IDS).logits, atol=1e-5, rtol=0)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    save_causal_lm(model, tokenizer, tmp_path)
    again, words = load_causal_lm(str(tmp_path))
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert len(words) == len(tokenizer)
    assert [name for name, p in again.named_parameters() if p.requires_grad] == trainable


def test_adapter_weights_follow_the_seed_only(saved):
    hashes = []
    for seed in (1, 1, 2):
        torch.rand(1)
        hashes.append(weights_hash(load_causal_lm(str(saved), lora=LoraSettings(r=2), seed=seed)[0]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_unknown_adapter_targets(saved):
    with pytest.raises(ModelError, match="lora_target_modules"):
        load_causal_lm(str(saved), lora=LoraSettings(target_modules=("nothing",)))


def test_padding_without_a_padding_token(copy):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (copy / name).is_file():
            data = json.loads((copy / name).read_text())
            data.pop("pad_token", None)
            (copy / name).write_text(json.dumps(data))
    config = json.loads((copy / "config.json").read_text())
    config["pad_token_id"] = None
    (copy / "config.json").write_text(json.dumps(config))
    model, tokenizer = load_causal_lm(str(copy))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert model.config.pad_token_id == 1
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)


@pytest.mark.parametrize("damage", ["cut", "gone", "pickle"])
def test_damaged_weights_name_the_file(copy, damage):
    weights = copy / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        weights.rename(copy / ("pytorch_model.bin" if damage == "pickle" else "elsewhere"))
    with pytest.raises(ModelError) as caught:
        load_causal_lm(str(copy))
    assert "model.safetensors" in str(caught.value)
    if damage == "pickle":
        assert "pytorch_model.bin" in str(caught.value)


def test_weights_that_lack_a_layer(copy):
    from safetensors.torch import load_file, save_file

    state = load_file(copy / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_causal_lm(str(copy))


def test_sharded_weights_with_one_shard_gone(saved, tmp_path):
    model, tokenizer = load_causal_lm(str(saved))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path)
    assert load_causal_lm(str(tmp_path))[0].dtype == torch.float32
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError) as caught:
        load_causal_lm(str(tmp_path))
    assert shard.name in str(caught.value)


def test_missing_parts(copy, tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_causal_lm(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm("nobody/no-such-model")
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer"):
        load_causal_lm(str(copy))
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        load_causal_lm(str(copy))


def test_four_bits_need_a_gpu(saved):
    with pytest.raises(ModelError, match="need a GPU"):
        load_causal_lm(str(saved), load_in_4bit=True, device="cpu")
