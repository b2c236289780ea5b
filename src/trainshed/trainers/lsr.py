"""LSR: the retriever learns from which passages help the generator.

REPLUG LSR (arXiv 2301.12652, section 4) and RA-DIT (arXiv 2310.01352, section 2.3). For each question the
current retriever finds candidates; the frozen generator says how likely each of them makes the answer; the KL
divergence between the two distributions over the candidates is the loss. As in RA-DIT only the question's
encoder learns, so that no passage is embedded again; with ``train_passage_encoder`` both learn, and the store
gets new embeddings every so many steps and at the end. The gate is ours (`rag.losses.gate_weights`): only
questions on which the generator shows that retrieval helps, and which passage helps, teach.

Left out: the losses (`rag.losses`), scoring (`rag.scoring`), training the generator (`ralt`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from trainshed.config.trainers.lsr import LSRParameters
from trainshed.data.examples import RagExample
from trainshed.errors import ConfigError
from trainshed.models.encoders import TextEncoder
from trainshed.progress import say
from trainshed.rag.losses import gate_weights, lsr_loss
from trainshed.rag.score_cache import ScoreCache
from trainshed.rag.scoring import AnswerScorer
from trainshed.rag.system import RAGSystem
from trainshed.trainers.base import TrainResult
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.rag_data import make_learning_system
from trainshed.trainers.rag_trainer import RAGPartTrainer

if TYPE_CHECKING:
    from trainshed.config.resolved import RunConfig

_SCORES, _EMBEDDINGS = "scores.sqlite", "passage_embeddings.safetensors"
_RANK_DEPTH = 10


class _Encoders(nn.Module):
    """The encoders that learn, as one module: what it is called with says which one encodes."""

    def __init__(self, queries: TextEncoder, passages: TextEncoder) -> None:
        super().__init__()
        self.queries, self.passages = queries, passages

    def forward(self, texts: Sequence[str], passages: bool = False) -> Tensor:
        """Return vectors ``[n, d]`` of questions, or of passages."""
        return (self.passages if passages else self.queries)(texts)  # type: ignore[no-any-return]


class HuggingFaceTrainerForLSR(RAGPartTrainer):
    """Trains a system's retriever from its generator's likelihoods; arguments as in `RAGPartTrainer`."""

    algorithm: ClassVar[str] = "lsr"
    parameters_class = LSRParameters
    parameters: LSRParameters

    def __init__(self, rag_system: RAGSystem, *args: Any, **kwargs: Any) -> None:
        super().__init__(rag_system, *args, **kwargs)
        self._scorer: AnswerScorer | None = None
        self._embeddings: Tensor | None = None
        self._rows_by_id: dict[str, int] | None = None
        self._both: _Encoders | None = None
        self._passed = 0

    @classmethod
    def make_system(cls, config: "RunConfig") -> RAGSystem:
        """Make the system to train: the store is searched directly, and nothing is answered."""
        return make_learning_system(config, scores=True, retrieves=False)

    @property
    def module(self) -> nn.Module:
        """The question's encoder; with ``train_passage_encoder`` both."""
        retriever = self.rag_system.retriever
        if not self.parameters.train_passage_encoder:
            return retriever.query_encoder
        if not retriever.is_dual:
            return retriever.query_encoder
        if self._both is None or self._both.queries is not retriever.query_encoder:
            self._both = _Encoders(retriever.query_encoder, retriever.passage_encoder)
        return self._both

    def train(self, train_dataset: Any = None) -> TrainResult:
        """Train the retriever; a single encoder becomes a dual one, unless both sides are to learn.

        Parameters
        ----------
        train_dataset
            Replaces the constructor's.
        """
        if not self.parameters.train_passage_encoder:
            self.rag_system.retriever.as_dual()
        directory = self.settings.directory
        cache = ScoreCache(None if directory is None else directory / _SCORES)
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        with cache:
            parameters = self.parameters
            self._scorer = self.rag_system.generator.scorer(
                cache=cache if parameters.score_cache else None,
                tokens_per_batch=parameters.scoring_tokens_per_batch,
            )
            try:
                self._passed = 0
                result = super().train(train_dataset)
            finally:
                self._scorer = None
        if parameters.gate and result.steps and not self._passed:
            say(
                "lsr: no question passed the gate, so nothing was learned: the generator does not show "
                "which passage helps. Train it to read first, or lower training.gate_margin and gate_min_mass"
            )
        if parameters.train_passage_encoder and result.steps:
            self.refresh()
        return result

    def train_data(self) -> Sequence[RagExample]:
        """Return the questions to learn from."""
        return self.examples()

    def eval_data(self) -> Sequence[RagExample] | None:
        """Return the held-out questions."""
        return self._eval_examples

    def collate(self, rows: Sequence[RagExample]) -> dict[str, Any]:
        """Return a batch of questions."""
        return {"examples": list(rows)}

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the number of questions."""
        return float(len(batch["examples"]))

    def before_training(self, loop: Any) -> None:
        """Keep the store's embeddings at hand, and renew them while the passage encoder learns."""
        if self.parameters.train_passage_encoder:
            loop.add_callback(_Refresh(self))

    def forget(self) -> None:
        """Read the store's embeddings and ids anew: it may have changed since."""
        self._embeddings = self._rows_by_id = None

    def _places(self) -> dict[str, int]:
        """Return the row of each passage, in their order."""
        if self._rows_by_id is None:
            self._rows_by_id = {
                identity: row for row, identity in enumerate(self.rag_system.knowledge_store.ids)
            }
        return self._rows_by_id

    # -- loss ------------------------------------------------------------------------------------------

    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the sum over questions of the gated divergence between retriever and generator."""
        examples: list[RagExample] = batch["examples"]
        parameters = self.parameters
        vectors = model([example.query for example in examples]).float()
        rows, mask = self._candidates(vectors.detach(), examples)
        scores = self._scores(model, vectors, rows, mask)
        texts = self._texts(rows, mask)
        assert self._scorer is not None, "scoring starts with train()"
        found = self._scorer.score(
            [example.query for example in examples],
            texts,
            [example.response for example in examples],
            closed_book=parameters.gate,
            ids=[example.id or example.query for example in examples],
        )
        likelihood = found.log_likelihood.to(scores.device)
        weights = None
        if parameters.gate:
            assert found.closed_book is not None
            weights = gate_weights(
                likelihood,
                found.closed_book.to(scores.device),
                margin=parameters.gate_margin,
                scale=parameters.gate_scale,
                min_mass=parameters.gate_min_mass,
                temperature=parameters.lm_temperature,
                mask=mask,
            )
        self._note(examples, rows, likelihood, weights)
        loss = lsr_loss(
            scores,
            likelihood,
            retrieval_temperature=parameters.retrieval_temperature,
            lm_temperature=parameters.lm_temperature,
            direction=parameters.direction,
            weights=weights,
            mask=mask,
            n_tokens=found.n_tokens.to(scores.device) if parameters.length_normalise else None,
        )
        return loss * len(examples)

    def _candidates(self, vectors: Tensor, examples: list[RagExample]) -> tuple[Tensor, Tensor]:
        """Return rows of the store ``[n, k]`` and which of them are there."""
        store = self.rag_system.knowledge_store
        k = min(self.parameters.candidates, len(store))
        texts = [example.query for example in examples]
        rows = store.search(vectors.cpu(), k, texts=texts).indices
        if self.parameters.gold_in_candidates:
            for number, example in enumerate(examples):
                gold = self._places().get(example.passage_id or "")
                if gold is not None and not bool((rows[number] == gold).any()):
                    rows[number, -1] = gold
        return rows, (rows >= 0).to(vectors.device)

    def _scores(self, model: nn.Module, vectors: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """Return the retriever's scores ``[n, k]``, with a gradient."""
        store = self.rag_system.knowledge_store
        if self.parameters.train_passage_encoder:
            needed, places = torch.unique(rows.clamp_min(0), return_inverse=True)
            ids = list(self._places())
            texts = [passage.text for passage in store.get([ids[row] for row in needed.tolist()])]
            dual = self.rag_system.retriever.is_dual
            found = model(texts, passages=True) if dual else model(texts)
            passages = found.float()[places.to(vectors.device)]
        else:
            if self._embeddings is None:
                self._embeddings = store.embeddings()
            passages = self._embeddings[rows.clamp_min(0)].to(vectors.device)
        scores = torch.einsum("nd,nkd->nk", vectors, passages)
        return scores.masked_fill(~mask, 0.0)

    def _texts(self, rows: Tensor, mask: Tensor) -> list[list[str]]:
        store, ids = self.rag_system.knowledge_store, list(self._places())
        return [
            [passage.text for passage in store.get([ids[row] for row in line if row >= 0])]
            for line in rows.tolist()
        ]

    def _note(
        self, examples: list[RagExample], rows: Tensor, likelihood: Tensor, weights: Tensor | None
    ) -> None:
        """Log how many questions pass the gate, and whether they teach the right passage."""
        if not self.module.training:
            return
        if weights is not None:
            self._passed += int((weights > 0).sum())
            self.measure("lsr/gate_share", float((weights > 0).float().mean()))
            self.measure("lsr/gate_weight", float(weights.mean()))
        ids = list(self._places())
        best = likelihood.argmax(dim=1).tolist()
        for number, example in enumerate(examples):
            if example.passage_id is None:
                continue
            found = [ids[row] for row in rows[number].tolist() if row >= 0]
            self.measure("lsr/relevant_found", float(example.passage_id in found))
            if example.passage_id in found and (weights is None or weights[number] > 0):
                self.measure("lsr/target_is_relevant", float(found[best[number]] == example.passage_id))

    # -- evaluation ------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Return ``eval/mrr@10`` and ``eval/recall@1`` on the held-out questions.

        Raises
        ------
        ConfigError
            When there are none, or none names the passage that answers it.
        """
        marked = [example for example in self._eval_examples or [] if example.passage_id is not None]
        if not marked:
            raise ConfigError(
                "no held-out question names its passage, so retrieval cannot be measured",
                where="data.validation_split",
                fix="questions with a passage_id, or eval_strategy: no",
            )
        if self.parameters.train_passage_encoder:
            self.refresh()
        vectors = self.rag_system.retriever.encode_queries([example.query for example in marked])
        store = self.rag_system.knowledge_store
        texts = [example.query for example in marked]
        found = store.search(vectors, min(_RANK_DEPTH, len(store)), texts=texts).ids
        ranks = [
            ids.index(example.passage_id) + 1 if example.passage_id in ids else 0
            for ids, example in zip(found, marked, strict=True)
        ]
        return {
            "eval/mrr@10": sum(1 / rank for rank in ranks if rank) / len(ranks),
            "eval/recall@1": sum(rank == 1 for rank in ranks) / len(ranks),
        }

    # -- embeddings ------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Embed every passage with the encoder as it is now; the store changes all at once."""
        store, retriever = self.rag_system.knowledge_store, self.rag_system.retriever
        texts = [passage.text for passage in store.passages()]
        vectors = retriever.encode_passages(texts, progress="embed passages anew")
        store.replace_embeddings(vectors.cpu(), embedder_hash=retriever.passage_hash())
        self._embeddings = None

    def save_state(self, path: Path) -> None:
        """Keep the embeddings that candidates are found with."""
        if self.parameters.train_passage_encoder:
            vectors = self.rag_system.knowledge_store.embeddings().contiguous()
            save_file({"embeddings": vectors}, path / _EMBEDDINGS)

    def load_state(self, path: Path) -> None:
        """Take the embeddings of a checkpoint."""
        if self.parameters.train_passage_encoder:
            vectors = load_file(path / _EMBEDDINGS)["embeddings"]
            self.rag_system.knowledge_store.replace_embeddings(vectors)

    def save(self, path: str | Path) -> None:
        """Write the retriever; with ``train_passage_encoder`` also the store, whose embeddings changed."""
        with written_into(Path(path)) as partial:
            self.rag_system.retriever.save(partial / "retriever")
            if self.parameters.train_passage_encoder:
                self.rag_system.knowledge_store.save(partial / "knowledge_store")


class _Refresh(TrainerCallback):
    """Renews the store's embeddings every so many steps."""

    def __init__(self, trainer: HuggingFaceTrainerForLSR) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Renew when it is time."""
        if state.global_step % self.trainer.parameters.refresh_steps == 0:
            self.trainer.refresh()
