"""A built decoder: shape, seed, refusals."""

import pytest
import torch

from trainshed.errors import ConfigError
from trainshed.models.build import build_llama
from trainshed.models.encoders import weights_hash
from trainshed.models.tokenizers import train_byte_bpe

SHAPE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64, "max_length": 64}


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(["some text"], vocab_size=260)


def test_seed_decides_the_weights_and_leaves_the_global_state(tokenizer):
    before = torch.random.get_rng_state()
    one = build_llama(tokenizer, seed=1, **SHAPE)
    torch.rand(1)
    assert weights_hash(one) == weights_hash(build_llama(tokenizer, seed=1, **SHAPE))
    assert weights_hash(one) != weights_hash(build_llama(tokenizer, seed=2, **SHAPE))
    torch.random.set_rng_state(before)
    build_llama(tokenizer, seed=1, **SHAPE)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_shape_ids_and_tying(tokenizer):
    model = build_llama(tokenizer, seed=0, **SHAPE)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.shape == (len(tokenizer), 32)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (0, 1)
    assert not model.training
    free = build_llama(tokenizer, seed=0, tie=False, **SHAPE)
    assert free.lm_head.weight is not free.model.embed_tokens.weight


def test_heads_must_divide_the_width(tokenizer):
    with pytest.raises(ConfigError, match="does not divide"):
        build_llama(tokenizer, seed=0, **{**SHAPE, "num_heads": 3})
