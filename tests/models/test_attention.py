"""Plain attention: the library's numbers, and only for models with the ordinary attention."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trainshed.models.attention import PLAIN, has_ordinary_attention

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_the_numbers_are_those_of_the_library(heads, padded):
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE | {"num_key_value_heads": heads})
    model = LlamaForCausalLM(config).eval().to(torch.bfloat16)
    ids = torch.randint(0, 50, (3, 20))
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 15:] = 0
    found = {}
    for name in ("eager", PLAIN):
        model.set_attn_implementation(name)
        with torch.no_grad():
            start = model(input_ids=ids[:, :9], attention_mask=mask[:, :9], use_cache=True)
            rest = model(input_ids=ids[:, 9:], attention_mask=mask, past_key_values=start.past_key_values)
            found[name] = torch.cat([start.logits, rest.logits], dim=1)
    # the scale is a power of two, so multiplying queries rounds as multiplying scores does
    assert torch.equal(found["eager"], found[PLAIN])


def test_models_with_the_ordinary_attention():
    assert has_ordinary_attention(LlamaForCausalLM(LlamaConfig(**SHAPE)))
    assert has_ordinary_attention(Qwen2ForCausalLM(Qwen2Config(**SHAPE)))


def test_models_with_an_attention_of_their_own():
    assert not has_ordinary_attention(Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=16)))
    assert not has_ordinary_attention(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2)))
    assert not has_ordinary_attention(torch.nn.Linear(2, 2))
