"""Training instances for a generator that answers with a passage before it (RALT), and their loss.

RA-DIT (arXiv 2310.01352, section 2.2, equation 2): one instance for each retrieved passage c of a question x,
and −Σ_j log p(y_j | c ∘ x, y_<j) over the answer's tokens only; here the end-of-sequence token is one of
them, so that the model learns to stop. A long passage is cut, never the answer.

`ralt_backward` is for a training step: it computes a few rows at a time, so that memory holds the activations
of some thousand tokens and no logits but those of answers, whatever the number of questions and passages; the
gradient is that of the whole step. Where the passages of a question share their start, it is computed once
forwards and once backwards.

`marginal_weights` turns the instances of a question into one loss, −log Σ_c P_R(c | x) p(y | c, x), the
likelihood that answers are given with when passages are marginalised over: its gradient is that of the
instances, each weighed by how much of the answer's likelihood it has.

Left out: retrieval (the caller has the passages), the optimiser (`trainers.ralt`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainshed.rag.answer_logits import AnswerLogits, AnswerModel, Group, Starts
from trainshed.rag.losses import answer_nll, marginal_log_lik
from trainshed.rag.prompts import PromptTokenizer, TokenizedPrompt

IGNORED = -100


@dataclass(frozen=True, slots=True)
class TrainingInstance:
    """One question with one passage and the answer, as token ids."""

    prompt: TokenizedPrompt
    weight: float = 1.0
    """How much its answer's tokens count, such as the passage's retrieval probability times k."""

    @property
    def input_ids(self) -> list[int]:
        """The prompt, the answer and the end-of-sequence token."""
        return self.prompt.input_ids

    @property
    def labels(self) -> list[int]:
        """The answer and the end-of-sequence token where they stand in ``input_ids``, −100 elsewhere."""
        return [IGNORED] * len(self.prompt.prompt_ids) + self.prompt.answer

    def __len__(self) -> int:
        return len(self.prompt)


def build_instances(
    prompts: PromptTokenizer,
    query: str,
    contexts: Sequence[str | None],
    answer: str,
    *,
    weights: Sequence[float] | None = None,
    question_id: str | None = None,
) -> list[TrainingInstance]:
    """Return one instance for each passage of a question.

    Parameters
    ----------
    prompts
        The template, tokenizer and length limit.
    query, answer
        The question and what is to be learnt.
    contexts
        Its passages; None stands for an instance without one.
    weights
        How much each instance counts; 1 by default.
    question_id
        What an error calls the question.

    Raises
    ------
    DataError
        When the question and the answer alone are longer than the length limit.
    """
    tokenized = prompts.question(query, contexts, answer, question_id=question_id)
    counts = [1.0] * len(tokenized) if weights is None else list(weights)
    return [TrainingInstance(prompt, weight) for prompt, weight in zip(tokenized, counts, strict=True)]


def collate(instances: Sequence[TrainingInstance], *, pad_token_id: int = 0) -> dict[str, Tensor]:
    """Return instances as one batch that any Transformers causal language model takes.

    Returns
    -------
    dict[str, Tensor]
        ``input_ids``, ``labels``, ``attention_mask`` and ``position_ids``, each ``[n, longest]`` int64,
        padded on the right (labels with −100). For other trainers; `ralt_backward` needs less memory.
    """
    longest = max(len(instance) for instance in instances)

    def padded(rows: Iterable[Sequence[int]], filling: int) -> Tensor:
        return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows])

    return {
        "input_ids": padded((instance.input_ids for instance in instances), pad_token_id),
        "labels": padded((instance.labels for instance in instances), IGNORED),
        "attention_mask": padded(([1] * len(instance) for instance in instances), 0),
        "position_ids": torch.arange(longest).expand(len(instances), -1).contiguous(),
    }


def answer_weight(instances: Sequence[TrainingInstance]) -> float:
    """Return Σ w_j n_j, the weighted number of answer tokens, by which a step's loss is divided."""
    return sum(instance.weight * len(instance.prompt.answer) for instance in instances)


def ralt_loss(
    model: AnswerModel,
    instances: Sequence[TrainingInstance],
    *,
    tokens_per_batch: int | None = None,
    denominator: float | None = None,
) -> Tensor:
    """Return the mean negative log-likelihood of answer tokens, Σ_j w_j nll_j / Σ_j w_j n_j.

    Parameters
    ----------
    model
        The model, wrapped as `AnswerModel`, in training or evaluation mode as the caller wants it.
    instances
        Best those of whole questions, so that shared starts are computed once.
    tokens_per_batch
        See `AnswerModel.plan`.
    denominator
        What to divide by instead of `answer_weight` of these instances, when they are a part of a step.

    Returns
    -------
    Tensor
        Scalar float32 with its graph, which keeps every activation; see `ralt_backward`.
    """
    scale = _scale(instances, denominator)
    losses = []
    for group in _plan(model, instances, tokens_per_batch):
        starts = model.starts(group)
        losses += [_part_loss(model.logits(rows, starts), instances, scale) for rows in group.batches]
    return torch.stack(losses).sum()


def ralt_backward(
    model: AnswerModel,
    instances: Sequence[TrainingInstance],
    *,
    tokens_per_batch: int | None = None,
    denominator: float | None = None,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """Add the gradient of `ralt_loss` to the parameters, a few rows at a time, and return the loss.

    Parameters
    ----------
    model, instances, tokens_per_batch, denominator
        As for `ralt_loss`.
    backward
        Called with each part's loss, such as ``accelerator.backward``. It may scale the loss by a constant.

    Returns
    -------
    Tensor
        Scalar float32 without graph.
    """
    scale = _scale(instances, denominator)
    total = torch.zeros((), device=model.model.device)
    for group in _plan(model, instances, tokens_per_batch):
        starts = model.starts(group)
        # The rows' gradients gather in leaves that stand for the starts' keys and values, and then go on
        # through the starts once; so no graph outlives its rows but the one of the starts.
        leaves = _leaves(starts)
        for rows in group.batches:
            loss = _part_loss(model.logits(rows, leaves), instances, scale)
            backward(loss)
            total += loss.detach()
        _pass_on(starts, leaves)
    return total


def log_likelihoods(
    model: AnswerModel, instances: Sequence[TrainingInstance], *, tokens_per_batch: int | None = None
) -> Tensor:
    """Return each instance's log p(answer, end | prompt), ``[n]`` float32; with a graph where one is kept."""
    total = torch.zeros(len(instances), device=model.model.device)
    for group in _plan(model, instances, tokens_per_batch):
        starts = model.starts(group)
        for rows in group.batches:
            answer = model.logits(rows, starts)
            total = total.index_add(
                0, answer.owners, -answer_nll(answer.logits, answer.targets, reduction="none")
            )
    return total


def marginal_loss(log_lik: Tensor, instances: Sequence[TrainingInstance], counts: Sequence[int]) -> Tensor:
    """Return −Σ_x log Σ_c P_R(c | x) p(y | c, x) over questions, scalar in nats.

    Parameters
    ----------
    log_lik
        What `log_likelihoods` says of the instances.
    instances
        Of whole questions, one after another; the weights of a question's are P_R and sum to 1.
    counts
        How many each question has.
    """
    prior = torch.tensor([instance.weight for instance in instances], device=log_lik.device)
    owners = torch.arange(len(counts), device=log_lik.device).repeat_interleave(
        torch.tensor(counts, device=log_lik.device)
    )
    return -marginal_log_lik(prior.log(), log_lik, owners, len(counts)).sum()


def marginal_weights(
    model: AnswerModel,
    instances: Sequence[TrainingInstance],
    counts: Sequence[int],
    *,
    tokens_per_batch: int | None = None,
) -> tuple[list[TrainingInstance], float]:
    """Return instances weighed so that the gradient of `ralt_loss` is that of `marginal_loss`, and its value.

    The new weight is the posterior p(c | x, y) under the model as it is now, without dropout.

    Parameters
    ----------
    model, instances, counts, tokens_per_batch
        As for `marginal_loss` and `ralt_loss`.
    """
    training = model.model.training
    model.model.eval()
    try:
        with torch.no_grad():
            log_lik = log_likelihoods(model, instances, tokens_per_batch=tokens_per_batch)
    finally:
        model.model.train(training)
    value = float(marginal_loss(log_lik, instances, counts))
    prior = torch.tensor([instance.weight for instance in instances], device=log_lik.device)
    joint = prior.log() + log_lik
    weights = torch.cat([part.softmax(0) for part in joint.split(list(counts))]).tolist()
    return [
        replace(instance, weight=weight) for instance, weight in zip(instances, weights, strict=True)
    ], value


def _plan(
    model: AnswerModel, instances: Sequence[TrainingInstance], tokens_per_batch: int | None
) -> list[Group]:
    return model.plan([instance.prompt for instance in instances], tokens_per_batch=tokens_per_batch)


def _scale(instances: Sequence[TrainingInstance], denominator: float | None) -> float:
    weight = answer_weight(instances) if denominator is None else denominator
    if weight <= 0:
        raise ValueError(f"the answers' tokens weigh {weight} in all; the loss needs a weight above 0")
    return 1.0 / weight


def _part_loss(answer: AnswerLogits, instances: Sequence[TrainingInstance], scale: float) -> Tensor:
    """Return Σ w_j nll_j / denominator over the answer tokens of some rows."""
    nll = answer_nll(answer.logits, answer.targets, reduction="none")
    weights = torch.tensor([instance.weight for instance in instances], device=nll.device)
    return (nll * weights[answer.owners]).sum() * scale


def _leaves(starts: Starts | None) -> Starts | None:
    if starts is None:
        return None
    layers = [
        (
            keys.detach().requires_grad_(keys.requires_grad),
            values.detach().requires_grad_(values.requires_grad),
        )
        for keys, values in starts.layers
    ]
    return Starts(layers, starts.lengths)


def _pass_on(starts: Starts | None, leaves: Starts | None) -> None:
    """Send what gathered in the leaves back through the starts."""
    if starts is None or leaves is None:
        return
    pairs = [
        (tensor, leaf.grad)
        for tensors, stand_ins in zip(starts.layers, leaves.layers, strict=True)
        for tensor, leaf in zip(tensors, stand_ins, strict=True)
        if leaf.grad is not None
    ]
    if pairs:
        torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
