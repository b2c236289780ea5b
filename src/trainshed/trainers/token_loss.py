"""The next-token loss of a causal language model, at the positions where it counts.

Positions without weight never reach the output layer, which for a large vocabulary is most of the memory.
Left out: the loss on retrieved passages (see `rag.losses`).
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from trainshed.errors import ConfigError


def weighted_token_loss(
    model: Any, input_ids: Tensor, weights: Tensor, *, position_ids: Tensor | None = None
) -> Tensor:
    """Return the weighted sum of the negative log-likelihoods of tokens, in nats.

    Parameters
    ----------
    model
        Any causal language model of `transformers`, plain, with adapters, or wrapped for several processes.
    input_ids
        ``[n, t]``, padded on the right; padding needs no mask, since a position sees only what stands before.
    weights
        ``[n, t]``, of each token as a target; the first column counts nothing.
    position_ids
        ``[n, t]`` that start again at 0 where another text begins in the row; there is no attention across.

    Returns
    -------
    Tensor
        A number, with a gradient where the model has one.

    Raises
    ------
    ConfigError
        When a row has several texts and the model would carry its state from one to the next.
    """
    targets = torch.zeros_like(weights, dtype=torch.bool)
    targets[:, :-1] = weights[:, 1:] > 0
    more: dict[str, Any] = {"use_cache": False}
    if position_ids is not None:
        check_packing(model)
        more["position_ids"] = position_ids
    if _keeps_chosen_logits(model):
        more["logits_to_keep"] = targets
    logits = model(input_ids=input_ids, **more).logits
    if logits.dim() == 3:
        logits = logits[targets]
    wanted, scale = input_ids[:, 1:][targets[:, :-1]], weights[:, 1:][targets[:, :-1]]
    losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    return (losses * scale).sum()


def check_packing(model: Any) -> None:
    """Refuse to put several texts into one row for a model that reads with a state.

    Positions that start again tell attention where a text begins; a recurrent layer of the library does not
    look at them, and its state would go on from one text into the next without a word.

    Raises
    ------
    ConfigError
        When the model has recurrent layers (Mamba, RWKV, hybrids).
    """
    inner = _plain(model)
    if getattr(inner, "_is_stateful", False):
        raise ConfigError(
            f"packed texts would leak into one another: the state of a {inner.config.model_type} is not "
            "cleared where another text begins in a row",
            where="training.packing",
            fix="training.packing: false",
        )


def _keeps_chosen_logits(model: Any) -> bool:
    # the class's forward: mixed precision may have wrapped the object's
    return "logits_to_keep" in inspect.signature(type(_plain(model)).forward).parameters


def _plain(model: Any) -> Any:
    """Return the library's model, out of the wrappers of several processes and of adapters."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner
