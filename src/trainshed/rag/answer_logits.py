"""The logits of answer tokens for many prompts at once, at the least work for what is asked.

Only positions that predict an answer token go through the output head. Rows are sorted by length, so that
little is padding. The start that the passages of one question share (a template with the question first) is
computed once, and its keys and values are expanded over the passages; the rows of several questions then
stand in one batch, each behind its own start. Both are exact: padding stands on the right of what a position
may see, and positions are counted per row.

Used without gradients to score passages and with gradients to train the generator. Left out: several short
rows in one long row (on a CPU, where 4 % of sorted rows is padding, the attention over foreign tokens made a
training step 1.4 times as long).
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainshed.rag.prompts import TokenizedPrompt

_TOKENS_PER_BATCH, _TOKENS_PER_BATCH_CPU, _TOKENS_PER_BATCH_CPU_HALF = 16_384, 1_024, 1_536
_MIN_SHARED_TOKENS = 8
# Widths are multiples of this: a library that compiles a kernel for each shape then keeps fewer of them.
_WIDTH_STEP = 8
_PROBE_TOLERANCE = 1e-3
_PROBE_TOLERANCE_HALF = 0.05


@dataclass(slots=True)
class Row:
    """One prompt as the model is to read it."""

    prompt: TokenizedPrompt
    index: int
    """Its place among the prompts that were given."""
    start: int | None = None
    """Which of the shared starts it stands behind; None for none."""

    @property
    def ids(self) -> list[int]:
        """The tokens that are not in the shared start."""
        prompt = self.prompt
        return prompt.input_ids if self.start is None else prompt.context + prompt.suffix + prompt.answer

    @property
    def length(self) -> int:
        """How many tokens that is."""
        return len(self.prompt) - (0 if self.start is None else len(self.prompt.prefix))


@dataclass(slots=True)
class Group:
    """Rows that are computed together, with the starts that some of them stand behind."""

    starts: list[list[int]]
    batches: list[list[Row]]


@dataclass(slots=True)
class Starts:
    """Keys and values of several starts."""

    layers: list[tuple[Tensor, Tensor]]
    """A layer's keys and values, each ``[starts, heads, length, head size]``, padded on the right."""
    lengths: Tensor
    """``[starts]``."""


@dataclass(slots=True)
class AnswerLogits:
    """The logits of every answer token of a batch of rows."""

    logits: Tensor
    """``[T, V]`` in the model's (or autocast's) precision, row by row, in the answer's order."""
    targets: Tensor
    """``[T]`` the answer's token ids."""
    owners: Tensor
    """``[T]`` index of the prompt that each token belongs to."""


class AnswerModel:
    """A causal language model, asked for the logits of answers.

    Parameters
    ----------
    model
        Any Transformers causal language model, plain, with adapters, or wrapped for distributed training.
    share_starts
        Whether prompts of one question may share their start. It is done where the model allows it: plain
        (not sliding, not recurrent) attention caches, and the same logits in a small test at first use.
    """

    def __init__(self, model: Any, *, share_starts: bool = True) -> None:
        self.model = model
        self._share_starts = share_starts
        self._proven: bool | None = None
        inner = getattr(model, "module", model)
        inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
        self._inner = inner
        self._arguments = set(inspect.signature(inner.forward).parameters)
        self._positions = getattr(inner.config.get_text_config(), "max_position_embeddings", None)

    def shares_starts(self) -> bool:
        """Return whether shared starts are computed once, as the model now stands."""
        if not self._share_starts:
            return False
        if self._inner.training and any(
            getattr(module, "gradient_checkpointing", False) for module in self._inner.modules()
        ):
            return False  # Transformers keeps no keys and values then
        if self._proven is None:
            self._proven = self._has_plain_cache() and self._probe()
        return self._proven

    def plan(self, prompts: Sequence[TokenizedPrompt], *, tokens_per_batch: int | None = None) -> list[Group]:
        """Sort prompts into batches of rows, largest first, and find out which starts to share.

        Parameters
        ----------
        prompts
            Each with an answer. Prompts of one question share their start when `TokenizedPrompt.prefix` is
            equal.
        tokens_per_batch
            The most tokens, padding included, that one forward pass may hold (shared starts count in every
            row, since their keys and values do). By default 1,024 on a CPU, whose caches hold no more (8,192
            take 1.7 times as long), or 1,536 for a model in a half precision, and 16,384 elsewhere.

        Returns
        -------
        list[Group]
            Every prompt is in exactly one batch.
        """
        if tokens_per_batch is None:
            half = next(self.model.parameters()).dtype in (torch.bfloat16, torch.float16)
            on_cpu = _TOKENS_PER_BATCH_CPU_HALF if half else _TOKENS_PER_BATCH_CPU
            tokens_per_batch = on_cpu if self.model.device.type == "cpu" else _TOKENS_PER_BATCH
        alone, sharing = self._sharing(prompts)
        groups = []
        if alone:
            groups.append(Group([], _batches(alone, tokens_per_batch)))
        for part in _parts(sharing, tokens_per_batch):
            rows = [
                Row(prompts[index], index, start)
                for start, (_, members) in enumerate(part)
                for index in members
            ]
            longest = max(len(start) for start, _ in part)
            groups.append(Group([start for start, _ in part], _batches(rows, tokens_per_batch, longest)))
        return groups

    def starts(self, group: Group) -> Starts | None:
        """Compute the keys and values of a group's shared starts; None when it has none."""
        if not group.starts:
            return None
        ids, lengths = _pad(group.starts, self.model.device, self._positions)
        # one position is kept, since a model wants to say something; as an index, for torch copies the output
        # weights for each row of a slice
        keep = torch.zeros(1, dtype=torch.long, device=ids.device)
        output = self.model(input_ids=ids, use_cache=True, **self._optional(logits_to_keep=keep))
        layers = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
        return Starts(layers, lengths)

    def logits(self, rows: Sequence[Row], starts: Starts | None) -> AnswerLogits:
        """Return the logits of the answers of one batch of rows.

        Parameters
        ----------
        rows
            One of a group's batches.
        starts
            What `starts` returned for that group.
        """
        device = self.model.device
        ids, lengths = _pad([row.ids for row in rows], device, self._positions)
        answers = torch.tensor([len(row.prompt.answer) for row in rows], device=device)
        positions = torch.arange(ids.shape[1], device=device).expand(len(rows), -1)
        # The token at position p is predicted at p - 1.
        end = lengths.unsqueeze(1) - 1
        predicts = (positions < end) & (positions >= end - answers.unsqueeze(1))
        more: dict[str, Any] = {}
        if starts is not None:
            chosen = torch.tensor([row.start for row in rows], device=device)
            past = starts.lengths[chosen].unsqueeze(1)
            width = starts.layers[0][0].shape[-2]
            before = torch.arange(width, device=device) < past
            more["attention_mask"] = torch.cat([before, positions < lengths.unsqueeze(1)], dim=1).long()
            more["past_key_values"] = self._cache(starts, chosen)
            more["use_cache"] = True
            # What is padding stands at its row's last position: the model may have none beyond it.
            more |= self._optional(position_ids=past + positions.minimum(lengths.unsqueeze(1) - 1))
        logits = self._forward(ids, predicts, more)
        targets = torch.tensor([token for row in rows for token in row.prompt.answer], device=device)
        owners = torch.tensor([row.index for row in rows], device=device).repeat_interleave(answers)
        return AnswerLogits(logits, targets, owners)

    def _forward(self, ids: Tensor, predicts: Tensor, more: dict[str, Any]) -> Tensor:
        """Return the logits at the True positions of ``predicts``, row by row."""
        more.setdefault("use_cache", False)
        if "logits_to_keep" in self._arguments:
            more["logits_to_keep"] = predicts
        logits: Tensor = self.model(input_ids=ids, **more).logits
        return logits if logits.dim() == 2 else logits[predicts]

    def _optional(self, **arguments: Any) -> dict[str, Any]:
        """Return those arguments that the model knows and that are not None."""
        return {
            name: value for name, value in arguments.items() if value is not None and name in self._arguments
        }

    def _cache(self, starts: Starts, chosen: Tensor) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self._inner.config)
        for layer, (keys, values) in enumerate(starts.layers):
            cache.update(keys.index_select(0, chosen), values.index_select(0, chosen), layer)
        return cache

    def _sharing(
        self, prompts: Sequence[TokenizedPrompt]
    ) -> tuple[list[Row], list[tuple[list[int], list[int]]]]:
        """Return the rows that stand alone, and each worthwhile start with the indices of its prompts."""
        members: dict[tuple[int, ...], list[int]] = {}
        for index, prompt in enumerate(prompts):
            members.setdefault(tuple(prompt.prefix) if prompt.context or prompt.suffix else (), []).append(
                index
            )
        alone: list[Row] = []
        sharing = []
        for start, indices in members.items():
            if len(start) >= _MIN_SHARED_TOKENS and len(indices) > 1 and self.shares_starts():
                sharing.append((list(start), indices))
            else:
                alone += [Row(prompts[index], index) for index in indices]
        return alone, sharing

    def _has_plain_cache(self) -> bool:
        """Return whether every layer keeps all its keys and values."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        if "past_key_values" not in self._arguments:
            return False
        layers = DynamicCache(config=self._inner.config).layers
        return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)

    def _probe(self) -> bool:
        """Return whether this model gives the same logits with and without sharing, on four short rows."""
        vocabulary = int(self._inner.get_input_embeddings().num_embeddings)
        tokens = [(7 * place + 3) % max(vocabulary - 1, 1) for place in range(64)]
        prompts = [
            TokenizedPrompt(tokens[:9], tokens[20:24], tokens[30:33], tokens[40:43]),
            TokenizedPrompt(tokens[:9], tokens[22:24], tokens[30:33], tokens[41:43]),
            TokenizedPrompt(tokens[5:18], tokens[25:30], tokens[31:33], tokens[44:47]),
            TokenizedPrompt(tokens[5:18], tokens[26:29], tokens[31:33], tokens[40:47]),
        ]
        group = Group(
            [prompts[0].prefix, prompts[2].prefix],
            [[Row(prompt, index, index // 2) for index, prompt in enumerate(prompts)]],
        )
        training = self.model.training
        self.model.eval()
        try:
            # Autocast would keep the weights that it casts here, without gradients, for its whole region.
            with torch.no_grad(), torch.autocast(self.model.device.type, enabled=False):
                plain = self.logits([Row(prompt, index) for index, prompt in enumerate(prompts)], None).logits
                shared = self.logits(group.batches[0], self.starts(group)).logits
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            return False  # a model whose forward pass takes no given cache; the plain way is always right
        finally:
            self.model.train(training)
        half = plain.dtype in (torch.bfloat16, torch.float16)
        scale = plain.float().std() + 1e-6
        gap = (plain.float() - shared.float()).abs().max() / scale
        return bool(gap < (_PROBE_TOLERANCE_HALF if half else _PROBE_TOLERANCE))


def _pad(rows: Sequence[list[int]], device: torch.device, positions: int | None) -> tuple[Tensor, Tensor]:
    """Return rows as ``[n, width]``, padded on the right with token 0, and their lengths.

    No mask is needed: a position sees only what stands before it, and padding stands behind. The width stays
    within the model's ``positions``, where it has a limit.
    """
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    width = -(-longest // _WIDTH_STEP) * _WIDTH_STEP
    width = width if positions is None else max(longest, min(width, positions))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return ids.to(device), lengths.to(device)


def _batches(rows: Iterable[Row], tokens_per_batch: int, before: int = 0) -> list[list[Row]]:
    """Return rows in batches of similar length whose padded size stays within the budget, longest first."""
    batches: list[list[Row]] = []
    room = 0
    for row in sorted(rows, key=lambda row: (-row.length, row.index)):
        if room < 1:
            batches.append([])
            room = max(1, tokens_per_batch // (row.length + before))
        batches[-1].append(row)
        room -= 1
    return batches


def _parts(
    sharing: Sequence[tuple[list[int], list[int]]], tokens_per_batch: int
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Yield starts of similar length together, as many as fit the budget."""
    part: list[tuple[list[int], list[int]]] = []
    for start in sorted(sharing, key=lambda start: -len(start[0])):
        if part and len(part[0][0]) * (len(part) + 1) > tokens_per_batch:
            yield part
            part = []
        part.append(start)
    if part:
        yield part
