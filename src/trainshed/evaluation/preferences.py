"""How often a policy prefers the better of two answers, and by how much.

With a reference, the margin of a pair is that of the implicit rewards of DPO (arXiv 2305.18290, section 5.1)
without their factor β: log π(y+|x)/π_ref(y+|x) − log π(y−|x)/π_ref(y−|x), in nats; its sign does not depend
on β. Without one, of the log-likelihoods themselves. Left out: reward models, which say it themselves.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainshed.data.formats import Row
from trainshed.errors import DataError
from trainshed.evaluation.language import LanguageModel, LanguageScores, row_ids
from trainshed.evaluation.significance import Resampling
from trainshed.progress import say, task
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.prompts import TokenizedPrompt
from trainshed.rag.scoring import token_log_probs

_AT_ONCE = 64


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
        prompt
        for number, row in enumerate(rows, start=1)
        for prompt in _tokenize_pair(tokenizer, row, f"pair {number}")
    ]
    found = completion_log_probs(policy, pairs, tokens_per_batch=tokens_per_batch)
    if reference is not None:
        found = found - completion_log_probs(reference, pairs, tokens_per_batch=tokens_per_batch)
    return found[0::2] - found[1::2]


def measure_preferences(
    lm: LanguageModel,
    rows: Sequence[Row],
    places: Sequence[str],
    *,
    reference: LanguageScores | None = None,
    resampling: Resampling | None = None,
) -> LanguageScores:
    """Measure which of two answers a model finds likelier.

    Parameters
    ----------
    lm
        The model. Where a prompt and its answers are more than it reads, the beginning of the prompt is cut,
        the same for both answers, and a line says how often.
    rows, places
        ``n`` checked pairs with their prompts, and where each came from.
    reference
        What this returned for the model that it is compared with.
    resampling
        Bootstrap samples, confidence and seed.

    Returns
    -------
    LanguageScores
        ``likelihood_accuracy`` (a tie counts half) and ``likelihood_margin``, in nats; with a reference also
        the same of implicit rewards, ``reward_accuracy`` and ``reward_margin``.

    Raises
    ------
    DataError
        When there are no rows, or an answer alone is more than the model reads.
    """
    if not rows:
        raise DataError("there is no pair to measure on", fix="a split with at least one row")
    found = np.zeros((len(rows), 2))
    limit, cut = lm.limit, 0
    with task("preferences", len(rows)) as shown:
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            pairs = []
            for row, where in zip(rows[part], places[part], strict=True):
                pair, was_cut = _fitting(_tokenize_pair(lm.tokenizer, row, where), limit, where)
                pairs += pair
                cut += was_cut
            found[part] = completion_log_probs(lm.model, pairs).double().numpy().reshape(-1, 2)
            shown.advance(len(rows[part]))
    if cut:
        say(f"preference: {cut} of {len(rows)} prompts lost their beginning to fit into {limit} tokens")
    margins = found[:, 0] - found[:, 1]
    values = _preference_values("likelihood", margins)
    if reference is not None:
        values |= _preference_values("reward", margins - reference.values["likelihood_margin"])
    return LanguageScores(row_ids(rows), values, resampling=resampling or Resampling())


def _preference_values(name: str, margins: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy and margin of each pair."""
    return {f"{name}_accuracy": (margins > 0) + 0.5 * (margins == 0), f"{name}_margin": margins}


def _tokenize_pair(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], where: str
) -> list[TokenizedPrompt]:
    return [
        tokenize_completion(tokenizer, row["prompt"], row[side], where=f"{where}, {side}")
        for side in ("chosen", "rejected")
    ]


def _fitting(
    pair: list[TokenizedPrompt], limit: int | None, where: str
) -> tuple[list[TokenizedPrompt], bool]:
    """Return a pair of which both prompts have lost as much of their beginning as the longer one must."""
    over = 0 if limit is None else max(len(prompt) for prompt in pair) - limit
    if over <= 0:
        return pair, False
    if any(len(prompt.prefix) < over for prompt in pair):
        raise DataError(
            f"an answer leaves no room for its prompt in the {limit} tokens that are read",
            where=where,
            fix="a shorter answer, or a greater evaluation.max_length where the model reads more",
        )
    kept = [TokenizedPrompt(p.prefix[over:], p.context, p.suffix, p.answer) for p in pair]
    return kept, True


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
