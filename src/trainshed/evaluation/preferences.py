"""How often a policy prefers the better of two answers, and by how much.

With a reference, the margin of a pair is that of the implicit rewards of DPO (arXiv 2305.18290, section 5.1)
without their factor β: log π(y+|x)/π_ref(y+|x) − log π(y−|x)/π_ref(y−|x), in nats; its sign does not depend
on β. Without one, of the log-likelihoods themselves. Left out: reward models, which say it themselves.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainshed.errors import DataError
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.prompts import TokenizedPrompt
from trainshed.rag.scoring import token_log_probs


def preference_margins(
    policy: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    reference: Any = None,
    tokens_per_batch: int | None = None,
) -> Tensor:
    """Return the margin of each pair, ``[n]`` float32, in nats.

    Parameters
    ----------
    policy
        A causal language model.
    tokenizer
        Its tokenizer.
    rows
        ``prompt``, ``chosen`` and ``rejected``, texts or lists of messages.
    reference
        What the policy started from; None compares log-likelihoods.
    tokens_per_batch
        As in `AnswerModel.plan`.
    """
    pairs = [
        tokenize_completion(tokenizer, row["prompt"], row[side], where=f"pair {number}, {side}")
        for number, row in enumerate(rows, start=1)
        for side in ("chosen", "rejected")
    ]
    found = completion_log_probs(policy, pairs, tokens_per_batch=tokens_per_batch)
    if reference is not None:
        found = found - completion_log_probs(reference, pairs, tokens_per_batch=tokens_per_batch)
    return found[0::2] - found[1::2]


def preference_metrics(margins: Tensor) -> dict[str, float]:
    """Return ``preference/accuracy`` (a margin of 0 counts half) and ``preference/margin``, the mean."""
    wins = (margins > 0).float() + 0.5 * (margins == 0).float()
    return {"preference/accuracy": wins.mean().item(), "preference/margin": margins.mean().item()}


def completion_log_probs(
    model: Any, prompts: Sequence[TokenizedPrompt], *, tokens_per_batch: int | None = None
) -> Tensor:
    """Return log p(completion | prompt) of each, summed over its tokens, ``[n]`` float32."""
    total = torch.zeros(len(prompts))
    answers, training = AnswerModel(model), model.training
    model.eval()
    with contextlib.ExitStack() as stack:
        stack.callback(model.train, training)
        stack.enter_context(torch.no_grad())
        for group in answers.plan(prompts, tokens_per_batch=tokens_per_batch):
            starts = answers.starts(group)
            for rows in group.batches:
                found = answers.logits(rows, starts)
                total.index_add_(0, found.owners.cpu(), token_log_probs(found).cpu())
    return total


def tokenize_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, completion: Any, *, where: str = ""
) -> TokenizedPrompt:
    """Return a prompt and its completion as the trainers see them: texts end with the token that ends a text.

    Raises
    ------
    DataError
        When a conversation's prompt is not how prompt and completion together begin.
    """
    if isinstance(prompt, str):
        start = tokenizer(prompt, verbose=False)["input_ids"]
        end = tokenizer.eos_token or ""
        text = prompt + completion + ("" if completion.endswith(end) else end)
        whole = tokenizer(text, verbose=False)["input_ids"]
    else:
        start = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template([*prompt, *completion], return_dict=False)
    common = next((i for i, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), len(start))
    if not common or common >= len(whole):
        raise DataError(
            "the prompt is not how prompt and completion together begin",
            where=where,
            fix="a chat template that writes the prompt alike in both, and a prompt that is not empty",
        )
    # in two parts, so that the answers of one prompt may share the first
    return TokenizedPrompt(
        list(whole[: common - 1]), [], list(whole[common - 1 : common]), list(whole[common:])
    )
