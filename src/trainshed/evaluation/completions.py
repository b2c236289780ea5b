"""What a language model says to prompts, what rewards think of it, and how far it has gone from another one.

Left out: which of two completions is better (`win_rate`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch

from trainshed.data.prompts import Prompt
from trainshed.errors import ConfigError, DataError, ModelError
from trainshed.evaluation.language import LanguageModel, LanguageScores
from trainshed.evaluation.significance import Resampling
from trainshed.models.seeds import derive_seed
from trainshed.policy.kl import categorical_kl
from trainshed.policy.model import completion_logits
from trainshed.policy.rollouts import prompt_ids
from trainshed.policy.sampling import Sampling, pad_left, sample_completions
from trainshed.progress import say, task
from trainshed.rewards.functions import Judged, WeightedRewards

#: what is measured of every completion; a reward of such a name is called ``<name>_reward``
_OWN = ("score", "kl", "tokens", "unfinished")
#: logits of one forward pass: 128 MiB of float32
_LOGITS_AT_ONCE = 1 << 25


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said to one prompt.

    Parameters
    ----------
    text
        Without special tokens.
    prompt_ids, ids
        The tokens of the prompt, as much of it as was read, and of the completion, the one that ends it
        included.
    ended
        Whether such a token came.
    """

    text: str
    prompt_ids: list[int]
    ids: list[int]
    ended: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        return cls(**value)


def complete_prompts(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    batch_size: int = 16,
    seed: int = 0,
) -> list[Completion]:
    """Let a model complete prompts; the same for the same seed, whatever ran before.

    Parameters
    ----------
    lm
        The model. The beginning of a prompt that leaves no room is cut, and a line says how often.
    prompts
        Texts or conversations; these go through the chat template.
    max_new_tokens
        Longest completion, with the token that ends it.
    temperature, top_p
        Of the sampling; a temperature of 0 takes the likeliest token each time.
    batch_size
        Prompts at once.
    seed
        Decides what is sampled.

    Raises
    ------
    ConfigError
        When completions leave no room for a prompt.
    DataError
        When there are no prompts, or one has no tokens.
    ModelError
        When the tokenizer has no token that ends a text.
    """
    if not prompts:
        raise DataError("there is no prompt to complete", fix="a split with at least one row")
    sampling = _sampling(lm, max_new_tokens, temperature, top_p)
    ids = _prompt_tokens(lm, prompts, max_new_tokens)
    found: list[Completion] = []
    training = lm.model.training
    lm.model.eval()
    try:
        with task("complete prompts", len(prompts)) as shown:
            for start in range(0, len(ids), batch_size):
                part = ids[start : start + batch_size]
                drawn = derive_seed(seed, "completions", str(start))
                done = sample_completions(lm.model, part, sampling, seed=drawn, batch_size=batch_size)
                rows = zip(part, done.texts(lm.tokenizer), done.tokens, done.mask, done.ended, strict=True)
                found += [
                    Completion(text, list(prompt), tokens[inside].tolist(), bool(ended))
                    for prompt, text, tokens, inside, ended in rows
                ]
                shown.advance(len(part))
    finally:
        lm.model.train(training)
    return found


def completion_kl(
    policy: LanguageModel, reference: LanguageModel, completions: Sequence[Completion], *, batch_size: int
) -> list[float]:
    """Return how far the policy is from a reference along each of its completions, in nats.

    The KL divergence of the two whole next-token distributions, at temperature 1, summed over the tokens of
    a completion; sampled at temperature 1 its mean is that of whole completions (`categorical_kl`).

    Parameters
    ----------
    policy, reference
        Models of the same tokens.
    completions
        What the policy said.
    batch_size
        Most completions at once; fewer where the vocabulary is large.
    """
    vocabulary = policy.model.config.get_text_config().vocab_size
    longest = max(len(completion.ids) for completion in completions)
    size = max(1, min(batch_size, _LOGITS_AT_ONCE // (vocabulary * longest)))
    found: list[float] = []
    with task("KL", len(completions)) as shown, torch.no_grad():
        for start in range(0, len(completions), size):
            part = completions[start : start + size]
            found += _kl(policy.model, reference.model, part)
            shown.advance(len(part))
    return found


def _kl(policy: Any, reference: Any, part: Sequence[Completion]) -> list[float]:
    device = next(policy.parameters()).device
    ids, mask = pad_left([completion.prompt_ids for completion in part], 0, device)
    width = max(len(completion.ids) for completion in part)
    answers = torch.zeros(len(part), width, dtype=torch.long)
    inside = torch.zeros(len(part), width, dtype=torch.long)
    for row, completion in enumerate(part):
        answers[row, : len(completion.ids)] = torch.tensor(completion.ids)
        inside[row, : len(completion.ids)] = 1
    ids = torch.cat([ids, answers.to(device)], 1)
    mask = torch.cat([mask, inside.to(device)], 1)
    own, other = (completion_logits(model, ids, mask, width)[0] for model in (policy, reference))
    each = categorical_kl(own, other).cpu() * inside
    return [float(value) for value in each.double().sum(1)]


def judge_completions(
    rewards: WeightedRewards, prompts: Sequence[Prompt], completions: Sequence[Completion]
) -> Judged:
    """Ask rewards about completions."""
    texts, columns = as_answers(prompts, completions), prompt_columns(prompts)
    return rewards([prompt.prompt for prompt in prompts], texts, **columns)


def as_answers(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Any]:
    """Return completions as reward functions take them: texts, or turns of the assistant."""
    texts = [completion.text for completion in completions]
    if prompts[0].conversational:
        return [[{"role": "assistant", "content": text}] for text in texts]
    return texts


def prompt_columns(prompts: Sequence[Prompt]) -> dict[str, list[Any]]:
    """Return the further columns of the prompts, None where one lacks them."""
    names = sorted({name for prompt in prompts for name in prompt.columns})
    return {name: [prompt.columns.get(name) for prompt in prompts] for name in names}


def reward_scores(
    ids: Sequence[str],
    judged: Judged,
    completions: Sequence[Completion],
    *,
    kl: Sequence[float] | None = None,
    resampling: Resampling | None = None,
) -> LanguageScores:
    """Return what completions are worth.

    Returns
    -------
    LanguageScores
        ``score``, the weighted sum of the rewards; each reward by its name; ``kl`` where it is given;
        ``tokens`` of the completion; ``unfinished``, 1 where it did not end.
    """
    values = {"score": np.array(judged.totals, dtype=np.float64)}
    for name, column in judged.values.items():
        values[f"{name}_reward" if name in _OWN else name] = np.array(column, dtype=np.float64)
    if kl is not None:
        values["kl"] = np.array(kl, dtype=np.float64)
    values["tokens"] = np.array([len(completion.ids) for completion in completions], dtype=np.float64)
    values["unfinished"] = np.array([not completion.ended for completion in completions], dtype=np.float64)
    failed = {name for reasons in judged.failures for name in reasons}
    counts = {
        f"n_failed_{name}": sum(name in reasons for reasons in judged.failures) for name in sorted(failed)
    }
    return LanguageScores(tuple(ids), values, counts=counts, resampling=resampling or Resampling())


def _sampling(lm: LanguageModel, max_new_tokens: int, temperature: float, top_p: float) -> Sampling:
    end = lm.tokenizer.eos_token_id
    if end is None:
        raise ModelError(
            "the tokenizer has no token that ends a text",
            where=str(getattr(lm.tokenizer, "name_or_path", "") or "tokenizer"),
            fix="set eos_token in its tokenizer_config.json",
        )
    known = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    more = known if isinstance(known, list) else [] if known is None else [known]
    pad = lm.tokenizer.pad_token_id
    return Sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        stop_ids=tuple(dict.fromkeys([int(end), *map(int, more)])),
        pad_id=int(end if pad is None else pad),
    )


def _prompt_tokens(lm: LanguageModel, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
    limit = lm.limit
    room = None if limit is None else limit - max_new_tokens
    if room is not None and room < 1:
        raise ConfigError(
            f"completions of {max_new_tokens} tokens leave no room in the {limit} that are read",
            where="evaluation.max_new_tokens",
            fix=f"less than {limit}",
        )
    found, cut = [], 0
    for number, prompt in enumerate(prompts, start=1):
        ids = prompt_ids(lm.tokenizer, prompt)
        if not ids:
            raise DataError("the prompt has no tokens", where=f"row {number}", fix="remove the row")
        if room is not None and len(ids) > room:
            ids, cut = ids[-room:], cut + 1
        found.append(ids)
    if cut:
        say(f"{cut} of {len(prompts)} prompts lost their beginning to fit into {room} tokens")
    return found
