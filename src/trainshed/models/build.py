"""Small models with random weights.

A decoder of the Llama architecture (arXiv 2302.13971, section 2.2: pre-normalisation, SwiGLU, rotary
positions) and the shape of an encoder of the BERT architecture (arXiv 1810.04805, section 3). Left out:
training them (see `trainers.pretrain`, `trainers.transformer`).
"""

import torch
from transformers import BertConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from trainshed.errors import ConfigError


def build_llama(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_length: int,
    tie: bool = True,
    seed: int,
) -> LlamaForCausalLM:
    """Build a Llama-type decoder with random weights, in float32 and evaluation mode.

    Parameters
    ----------
    tokenizer
        Gives the vocabulary's size and the ids that pad and end a text.
    hidden_size, num_layers, num_heads, intermediate_size
        The shape.
    max_length
        Longest sequence in tokens.
    tie
        Use the input embeddings as the output layer too.
    seed
        Decides the weights; the global random state is left as it was.

    Raises
    ------
    ConfigError
        When the width does not divide into heads of even size.
    """
    if hidden_size % num_heads or (hidden_size // num_heads) % 2:
        raise ConfigError(
            f"a width of {hidden_size} does not divide into {num_heads} heads of even size",
            where="model.num_heads",
            fix=f"hidden_size a multiple of {2 * num_heads}",
        )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=tie,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # transformers draws initial weights from the global generators
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return model.eval()


def bert_config(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_length: int,
) -> BertConfig:
    """Return the configuration of a BERT-type encoder; `task_models.with_head` makes a model of it.

    Parameters
    ----------
    tokenizer
        Gives the vocabulary's size and the id that pads.
    hidden_size, num_layers, num_heads, intermediate_size
        The shape.
    max_length
        Longest sequence in tokens.

    Raises
    ------
    ConfigError
        When the width does not divide into heads.
    """
    if hidden_size % num_heads:
        raise ConfigError(
            f"a width of {hidden_size} does not divide into {num_heads} heads",
            where="model.num_heads",
            fix=f"hidden_size a multiple of {num_heads}",
        )
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
