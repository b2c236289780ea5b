"""RALT: the generator learns to answer with a retrieved passage before it.

RA-DIT (arXiv 2310.01352, section 2.2, eq. 2): one training instance for each retrieved passage, the loss on
the answer's tokens and the end of sequence only. The retriever is frozen, so passages are retrieved once.
Left out: training the retriever (`lsr`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from trainshed.config.trainers.ralt import RALTParameters
from trainshed.data.examples import RagExample
from trainshed.models.seeds import derive_seed
from trainshed.progress import task
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.instances import (
    TrainingInstance,
    answer_weight,
    build_instances,
    log_likelihoods,
    marginal_loss,
    marginal_weights,
    ralt_backward,
    ralt_loss,
)
from trainshed.rag.losses import retrieval_log_probs
from trainshed.rag.prompts import PromptTokenizer
from trainshed.rag.system import RAGSystem
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.packing import TokenRow, collate_rows, pack
from trainshed.trainers.rag_data import make_learning_system
from trainshed.trainers.rag_trainer import RAGPartTrainer
from trainshed.trainers.token_loss import weighted_token_loss

if TYPE_CHECKING:
    from trainshed.config.resolved import RunConfig

#: questions that are retrieved for at once
_RETRIEVE_AT_ONCE = 256
#: a passage with less of the posterior is not computed again to add that little to the gradient
_NEGLIGIBLE = 1e-4


class HuggingFaceTrainerForRALT(RAGPartTrainer):
    """Trains a system's generator on what its retriever finds; see `RAGPartTrainer` for the arguments."""

    algorithm: ClassVar[str] = "ralt"
    parameters_class = RALTParameters
    parameters: RALTParameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._instances: list[Any] | None = None
        self._held_out: list[Any] | None = None
        self._answering: AnswerModel | None = None

    @classmethod
    def make_system(cls, config: "RunConfig") -> RAGSystem:
        """Make the system to train: it retrieves, and the generator learns in its own precision."""
        return make_learning_system(config, scores=False, retrieves=True)

    @property
    def module(self) -> nn.Module:
        """The generator's model."""
        return self.rag_system.generator.model  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Retrieve anew: the retriever may have learned since."""
        self._instances = self._held_out = None

    def train_data(self) -> Sequence[Any]:
        """Return the instances of each question, or packed rows with ``packing``."""
        if self._instances is None:
            self._instances = self._rows(self.examples(), "retrieve passages to train on")
        return self._instances

    def eval_data(self) -> Sequence[Any] | None:
        """Return the instances of the held-out questions."""
        if self._eval_examples and self._held_out is None:
            self._held_out = self._rows(self._eval_examples, "retrieve passages to evaluate on")
        return self._held_out

    def lengths(self, data: Sequence[Any]) -> Sequence[int]:
        """Return the tokens of each row, of all its instances."""
        if self.parameters.packing:
            return [len(row) for row in data]
        return [sum(len(instance) for instance in row) for row in data]

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return a batch: instances as they are, or packed rows as tensors."""
        if self.parameters.packing:
            return dict(collate_rows(rows, self.rag_system.generator.tokenizer.pad_token_id or 0))
        instances = [instance for row in rows for instance in row]
        return {"instances": instances, "counts": [len(row) for row in rows]}

    def loss_sum(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Return the weighted sum of the answer tokens' negative log-likelihoods, or that of the answers'."""
        if "instances" not in batch:
            positions = batch.get("position_ids")
            return weighted_token_loss(model, batch["input_ids"], batch["weights"], position_ids=positions)
        answers, instances = self._answers_of(model), batch["instances"]
        if self.parameters.objective == "marginal":
            return marginal_loss(log_likelihoods(answers, instances), instances, batch["counts"])
        return ralt_loss(answers, instances, denominator=1.0)

    def loss_weight(self, batch: dict[str, Any]) -> float:
        """Return the weighted number of answer tokens."""
        if "instances" not in batch:
            return float(batch["weights"].sum())
        return answer_weight(batch["instances"])

    def backward(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        denominator: float,
        backward: Callable[[Tensor], object],
    ) -> Tensor | None:
        """Add the gradient a few rows at a time, so that memory does not grow with the batch."""
        if "instances" not in batch:
            return None
        answers, instances = self._answers_of(model), batch["instances"]
        if self.parameters.objective == "each":
            return ralt_backward(answers, instances, denominator=denominator, backward=backward)
        weighed, value = marginal_weights(answers, instances, batch["counts"])
        weighed = [instance for instance in weighed if instance.weight > _NEGLIGIBLE]
        found = ralt_backward(answers, weighed, denominator=denominator, backward=backward)
        return torch.full_like(found, value / denominator)

    def _answers_of(self, model: nn.Module) -> AnswerModel:
        """Return the model as one that is asked for answers; made once, since it tries out what it can do."""
        if self._answering is None or self._answering.model is not model:
            self._answering = AnswerModel(model)
        return self._answering

    def save(self, path: str | Path) -> None:
        """Write the generator: weights (or adapters), tokenizer and prompt, in the Hugging Face layout."""
        with written_into(Path(path)) as partial:
            self.rag_system.generator.write(partial)

    # -- instances -------------------------------------------------------------------------------------

    def _rows(self, examples: Sequence[RagExample], what: str) -> list[Any]:
        generator, parameters = self.rag_system.generator, self.parameters
        longest = min(parameters.max_length or generator.max_length, generator.max_length)
        prompts = PromptTokenizer(generator.template, generator.tokenizer, max_length=longest)
        rows = []
        with task(what, len(examples)) as shown:
            for start in range(0, len(examples), _RETRIEVE_AT_ONCE):
                part = examples[start : start + _RETRIEVE_AT_ONCE]
                found = self.rag_system.batch_retrieve(
                    [example.query for example in part], parameters.passages_per_question
                )
                for example, passages in zip(part, found, strict=True):
                    scores = torch.tensor([candidate.score for candidate in passages])
                    texts = [candidate.passage.text for candidate in passages]
                    rows.append(self._instances_of(prompts, example, texts, scores))
                    shown.advance()
        return self._packed(rows, longest) if parameters.packing else rows

    def _instances_of(
        self, prompts: PromptTokenizer, example: RagExample, texts: list[str], scores: Tensor
    ) -> list[TrainingInstance]:
        weights = [1.0] * len(texts)
        marginal = self.parameters.objective == "marginal"
        if marginal or self.parameters.weight_by_retrieval:
            temperature = self.rag_system.rag_config.retrieval_temperature
            probabilities = retrieval_log_probs(scores, temperature).exp()
            weights = (probabilities if marginal else probabilities * len(texts)).tolist()
        contexts: list[str | None] = list(texts)
        # decided by the question itself, so that it is the same in every epoch and after a restart
        draw = derive_seed(self.seed, "no context", example.id or example.query) % 10_000
        if draw < self.parameters.include_no_context * 10_000:
            contexts.append(None)
            weights.append(1.0)
        name = example.id or None
        return build_instances(
            prompts, example.query, contexts, example.response, weights=weights, question_id=name
        )

    def _packed(self, rows: list[list[TrainingInstance]], block_size: int) -> list[TokenRow]:
        flat = [instance for row in rows for instance in row]
        return pack([_token_row(instance) for instance in flat], block_size)


def _token_row(instance: TrainingInstance) -> TokenRow:
    prompt = [0.0] * len(instance.prompt.prompt_ids)
    answer = [instance.weight] * len(instance.prompt.answer)
    return TokenRow(tuple(instance.input_ids), (*prompt, *answer))
