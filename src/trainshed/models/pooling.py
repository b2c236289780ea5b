"""From the logits of a text's chunks to one prediction, and the temperature that calibrates it.

Everything here is a function of logits, so that what is trained, what is measured and what is used are the
same. Temperature scaling is that of Guo et al. 2017 (arXiv 1706.04599, section 4.2, eq. 9). Left out: the
models.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainshed.errors import ModelError

Pooling = Literal["mean", "max", "logits"]
#: the fit stays within these, so that separable data cannot drive it to 0 or infinity
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 0.05, 20.0


def sum_by_owner(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Return the sums of the rows of each owner: ``[windows, c]`` to ``[count, c]``."""
    return values.new_zeros(count, values.shape[1]).index_add(0, owners, values)


def _means(values: Tensor, owners: Tensor, count: int) -> Tensor:
    sizes = torch.bincount(owners, minlength=count).clamp(min=1).unsqueeze(1)
    return sum_by_owner(values, owners, count) / sizes


def _greatest(values: Tensor, owners: Tensor, count: int) -> Tensor:
    start = values.new_full((count, values.shape[1]), -torch.inf)
    places = owners.unsqueeze(1).expand_as(values)
    return start.scatter_reduce(0, places, values, reduce="amax")


def _log_means(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Return the logarithm of the mean of the exponentials, without underflow."""
    top = _greatest(values, owners, count).detach()
    return _means((values - top[owners]).exp(), owners, count).log() + top


def _wide(logits: Tensor) -> Tensor:
    """Return logits in float32 at least: those of half precision are too coarse to take logarithms of."""
    return logits if logits.dtype == torch.float64 else logits.float()


def class_log_probs(
    logits: Tensor,
    owners: Tensor,
    count: int,
    *,
    pooling: Pooling = "logits",
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Return the log-probabilities of classes of which one is right.

    Parameters
    ----------
    logits
        Of each chunk, shape ``[windows, classes]``.
    owners
        Number of the text that a chunk belongs to, shape ``[windows]``.
    count
        How many texts there are; each has at least one chunk.
    pooling
        Mean of the ``logits``, greatest logit of each class (``max``), or ``mean`` of the probabilities.
    temperature
        Divides the logits.

    Returns
    -------
    Tensor
        ``[count, classes]``, in nats.
    """
    scaled = _wide(logits) / temperature
    if pooling == "mean":
        return _log_means(scaled.log_softmax(-1), owners, count)
    # of logits, not of probabilities: those of a chunk that says nothing are as great as any other's
    pool = _greatest if pooling == "max" else _means
    return pool(scaled, owners, count).log_softmax(-1)


def label_log_probs(
    logits: Tensor,
    owners: Tensor,
    count: int,
    *,
    pooling: Pooling = "logits",
    temperature: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities that labels hold, and that they do not; arguments as in `class_log_probs`.

    Each label is for itself, so with ``max`` one chunk is enough.
    """
    scaled = _wide(logits) / temperature
    if pooling == "mean":
        yes = _log_means(functional.logsigmoid(scaled), owners, count)
        no = _log_means(functional.logsigmoid(-scaled), owners, count)
        return yes, no
    pooled = _means(scaled, owners, count) if pooling == "logits" else _greatest(scaled, owners, count)
    return functional.logsigmoid(pooled), functional.logsigmoid(-pooled)


def fit_temperature(loss: Callable[[Tensor], Tensor], *, max_iterations: int = 100) -> float:
    """Return the temperature with the least loss on held-out data, found by L-BFGS.

    Parameters
    ----------
    loss
        Mean negative log-likelihood at a temperature, a tensor with a gradient.
    max_iterations
        Of L-BFGS.

    Returns
    -------
    float
        Between 0.05 and 20.

    Raises
    ------
    ModelError
        When the loss is not a finite number.
    """
    # its logarithm is what is searched for: it may take any value, and scales alike in both directions
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature], lr=0.5, max_iter=max_iterations, line_search_fn="strong_wolfe"
    )

    def temperature() -> Tensor:
        low, high = math.log(_LEAST_TEMPERATURE), math.log(_MOST_TEMPERATURE)
        return log_temperature.clamp(low, high).exp()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(temperature())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    found = float(temperature().detach())
    if not math.isfinite(found):
        raise ModelError(
            "no temperature can be fitted: the predictions are not finite numbers",
            fix="lower training.learning_rate",
        )
    return found
