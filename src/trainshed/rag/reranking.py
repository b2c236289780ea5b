"""Order what a store found anew, by a cross-encoder that reads query and passage together.

Left out: training a cross-encoder.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from trainshed.errors import ModelError
from trainshed.models.precision import resolve_device
from trainshed.models.quiet import no_library_bars
from trainshed.rag.stores.base import KnowledgeStore, SearchResult


class CrossEncoderReranker:
    """Scores of (query, passage) pairs by one forward pass each.

    Parameters
    ----------
    name_or_path
        A sequence-classification model with one label: a directory or a hub name.
    batch_size
        Pairs scored at once; pairs of one length come together.
    max_length
        Tokens of a pair after which it is cut; the model's own limit when None.
    device
        Where the model runs.
    dtype
        Type of its weights.

    Raises
    ------
    ModelError
        When it cannot be loaded or is no cross-encoder with one label.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        batch_size: int = 32,
        max_length: int | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        from sentence_transformers import CrossEncoder

        self.name, self.batch_size = str(name_or_path), batch_size
        try:
            with no_library_bars():
                self.model = CrossEncoder(
                    self.name,
                    device=str(resolve_device(device)),
                    max_length=max_length,
                    model_kwargs={"dtype": dtype, "use_safetensors": True},
                )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelError(
                f"the cross-encoder cannot be loaded: {str(error).strip().splitlines()[0]}",
                where=self.name,
                fix="give a directory of a cross-encoder, or a hub name that this machine can reach",
            ) from error
        # an encoder without a head would be given a random one
        kinds = getattr(self.model.config, "architectures", None) or []
        if not any("SequenceClassification" in kind or "CausalLM" in kind for kind in kinds):
            raise ModelError(
                f"the model has no head that scores pairs: {kinds}", where=self.name, fix="a cross-encoder"
            )
        if self.model.num_labels != 1:
            raise ModelError(
                f"the cross-encoder has {self.model.num_labels} labels", where=self.name, fix="one label"
            )

    def scores(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[Tensor]:
        """Score every text against its query.

        Parameters
        ----------
        queries
            n queries.
        texts
            The texts of each query; their numbers may differ.

        Returns
        -------
        list[Tensor]
            For each query its texts' logits, float32.
        """
        pairs = [(query, text) for query, own in zip(queries, texts, strict=True) for text in own]
        if not pairs:
            return [torch.empty(0) for _ in queries]
        logits = self.model.predict(
            pairs,
            batch_size=self.batch_size,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
            convert_to_tensor=True,
        )
        return list(logits.float().cpu().flatten().split([len(own) for own in texts]))

    def rerank(
        self, queries: Sequence[str], result: SearchResult, store: KnowledgeStore, *, k: int | None = None
    ) -> SearchResult:
        """Order a search result by the cross-encoder.

        Parameters
        ----------
        queries
            The n query texts.
        result
            What ``store`` found for them.
        store
            Where the passages are read.
        k
            How many to keep; all when None.

        Returns
        -------
        SearchResult
            With the cross-encoder's logits as scores; equal ones keep the order of ``result``.
        """
        texts = [[passage.text for passage in store.get(ids)] for ids in result.ids]
        width = result.indices.shape[1] if k is None else k
        indices = torch.full((len(queries), width), -1, dtype=torch.int64)
        scores = torch.full((len(queries), width), float("-inf"))
        ids: list[list[str]] = []
        for row, logits in enumerate(self.scores(queries, texts)):
            order = logits.argsort(descending=True, stable=True)[:width]
            indices[row, : len(order)] = result.indices[row][order]
            scores[row, : len(order)] = logits[order]
            ids.append([result.ids[row][place] for place in order.tolist()])
        return SearchResult(indices, scores, ids)
