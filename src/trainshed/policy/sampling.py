"""Completions of prompts, sampled in batches: the same for the same seed, whatever ran before.

Left out: what they are worth (`trainshed.rewards`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from trainshed.models.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Parameters
    ----------
    max_new_tokens
        Longest completion, with the token that ends it.
    temperature, top_p, top_k
        Of the sampling; ``top_p=1`` and ``top_k=0`` take every token. A temperature of 0 takes the likeliest
        token each time.
    stop_ids
        Tokens that end a completion.
    pad_id
        Token that stands where there is none.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0

    def generation_config(self) -> GenerationConfig:
        """Return it as the library takes it, all of it said, so that a model's defaults do not count."""
        draws = self.temperature > 0
        return GenerationConfig(
            do_sample=draws,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature if draws else 1.0,
            top_p=self.top_p if draws else 1.0,
            top_k=self.top_k if draws else 50,  # its default: it warns of any other where nothing is drawn
            repetition_penalty=1.0,
            eos_token_id=list(self.stop_ids) or None,
            pad_token_id=self.pad_id,
            use_cache=True,
        )


@dataclass(frozen=True)
class Completions:
    """Prompts with what was sampled after them.

    Parameters
    ----------
    input_ids, attention_mask
        ``[n, p + t]``: prompts padded on the left, completions on the right.
    mask
        ``[n, t]``, true for the tokens of a completion, the one that ends it included.
    ended
        ``[n]``, whether such a token came.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    ended: Tensor

    @property
    def tokens(self) -> Tensor:
        """The completions' tokens ``[n, t]``."""
        return self.input_ids[:, -self.mask.shape[1] :]

    def texts(self, tokenizer: Any) -> list[str]:
        """Return the completions as text, without special tokens."""
        rows = [ids[inside].tolist() for ids, inside in zip(self.tokens.cpu(), self.mask.cpu(), strict=True)]
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))


#: from the prompts of a batch, padded, and their attention mask to what changes logits before sampling
MakeProcessors = Callable[[Tensor, Tensor], LogitsProcessorList]


def sample_completions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 64,
    processors: MakeProcessors | None = None,
) -> Completions:
    """Sample a completion of each prompt.

    Parameters
    ----------
    model
        Any causal language model of `transformers`, in evaluation mode.
    prompts
        ``n`` rows of tokens, each with at least one.
    sampling
        How tokens are chosen.
    seed
        Decides what comes; the global random state is left as it was.
    batch_size
        Prompts at once.
    processors
        Makes what changes the logits of a batch before sampling.

    Returns
    -------
    Completions
        On the model's device, in the order of the prompts.
    """
    device = next(model.parameters()).device
    config = sampling.generation_config()
    parts = []
    for start in range(0, len(prompts), batch_size):
        ids, mask = pad_left(prompts[start : start + batch_size], sampling.pad_id, device)
        more = {"logits_processor": processors(ids, mask)} if processors else {}
        with torch.no_grad(), torch.random.fork_rng(devices=_gpus(device)):
            torch.manual_seed(derive_seed(seed, "batch", str(start)))
            found = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **more)
        parts.append(_completed(ids, mask, found[:, ids.shape[1] :], sampling))
    return joined_completions(parts, sampling.pad_id)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return rows padded on the left, and their attention mask: ``[n, p]`` each."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(list(row), dtype=torch.long)
        mask[place, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def inside_completion(tokens: Tensor, stop_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return which tokens belong to completions, and which completions ended.

    Parameters
    ----------
    tokens
        ``[n, t]``.
    stop_ids
        The first of these in a row is its last token.

    Returns
    -------
    tuple of Tensor
        ``[n, t]`` and ``[n]``, both boolean.
    """
    stops = torch.isin(tokens, torch.tensor(list(stop_ids), dtype=tokens.dtype, device=tokens.device))
    before = stops.long().cumsum(1) - stops.long()
    return before == 0, stops.any(1)


def joined_completions(parts: Sequence[Completions], pad_id: int) -> Completions:
    """Return several batches of completions as one, padded to the same widths."""
    left = max(part.input_ids.shape[1] - part.mask.shape[1] for part in parts)
    right = max(part.mask.shape[1] for part in parts)
    ids, attention, masks = [], [], []
    for part in parts:
        width = part.mask.shape[1]
        sides = (left - part.input_ids.shape[1] + width, right - width)
        ids.append(torch.nn.functional.pad(part.input_ids, sides, value=pad_id))
        attention.append(torch.nn.functional.pad(part.attention_mask, sides))
        masks.append(torch.nn.functional.pad(part.mask, (0, sides[1])))
    ended = torch.cat([part.ended for part in parts])
    return Completions(torch.cat(ids), torch.cat(attention), torch.cat(masks), ended)


def _completed(ids: Tensor, mask: Tensor, new: Tensor, sampling: Sampling) -> Completions:
    """Return what was sampled after a batch of prompts, with nothing after the end of each."""
    inside, ended = inside_completion(new, sampling.stop_ids)
    new = torch.where(inside, new, sampling.pad_id)
    return Completions(torch.cat([ids, new], 1), torch.cat([mask, inside.long()], 1), inside, ended)


def _gpus(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
