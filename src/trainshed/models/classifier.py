"""A trained classifier in use: texts to labels and probabilities, with chunks pooled and calibrated.

Left out: training (see `trainers.transformer`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainshed.errors import ModelError
from trainshed.models.causal_lm import LOAD_ERRORS, load_tokenizer
from trainshed.models.model_files import check_model_directory
from trainshed.models.pooling import class_log_probs, label_log_probs
from trainshed.models.precision import resolve_device
from trainshed.models.quiet import no_library_bars
from trainshed.models.task_models import Reading, task_class
from trainshed.models.windows import collate_windows, text_windows


class Classifier:
    """Predicts the class of texts, or the labels that hold for them.

    Parameters
    ----------
    model
        With the head of `single_label` or `multi_label`, in evaluation mode.
    tokenizer
        Its tokenizer.
    reading
        How it reads; what its configuration holds when None.

    Attributes
    ----------
    names
        Of the labels, in the order of the probabilities.

    Raises
    ------
    ModelError
        When the model is of another task.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, reading: Reading | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.reading = reading or Reading.from_config(model.config)
        if self.reading.task not in ("single_label", "multi_label"):
            raise ModelError(
                f"the model was trained for the task {self.reading.task}, which has no classes of texts",
                fix="a model that was trained with task: single_label or multi_label",
            )
        self.names = tuple(model.config.id2label[number] for number in range(model.config.num_labels))

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Self:
        """Load what a training with algorithm `transformer` left.

        Parameters
        ----------
        path
            The directory.
        device
            Where to put it; ``auto`` takes the best there is.

        Raises
        ------
        ModelError
            When it is missing or damaged, or holds something else.
        """
        place = Path(path).expanduser()
        if not (place / "config.json").is_file():
            raise ModelError(
                "the directory holds no model",
                where=str(place),
                fix="train one first, with algorithm `transformer`, and give its outputs",
            )
        check_model_directory(place)
        tokenizer = load_tokenizer(str(place))
        try:
            with no_library_bars():
                # the head of either kind of task is the same
                model = task_class("single_label").from_pretrained(str(place), use_safetensors=True)
        except LOAD_ERRORS as error:
            raise ModelError(
                f"the classifier cannot be loaded: {str(error).strip().splitlines()[0]}",
                where=str(place),
                fix="give the outputs of a training with algorithm `transformer`",
            ) from error
        return cls(model.to(resolve_device(device)).eval(), tokenizer)

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = 32
    ) -> Tensor:
        """Return the probabilities of texts' labels.

        Parameters
        ----------
        texts
            Any number.
        pairs
            For a model that was trained with them, the second text of each.
        batch_size
            Texts that are read at once.

        Returns
        -------
        Tensor
            ``[n, labels]`` on the CPU; rows sum to 1 where one class is right.
        """
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one text")
        reading = self.reading
        windows = text_windows(
            self.tokenizer,
            texts,
            pairs,
            max_length=reading.max_length,
            overlap=reading.overlap,
            max_windows=reading.max_chunks,
        )
        order = sorted(range(len(texts)), key=lambda row: (-sum(map(len, windows[row])), row))
        found = torch.zeros(len(texts), len(self.names))
        device, pad = next(self.model.parameters()).device, self.tokenizer.pad_token_id
        with torch.no_grad():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                owners = torch.tensor([i for i, row in enumerate(rows) for _ in windows[row]], device=device)
                batch = collate_windows([each for row in rows for each in windows[row]], pad)
                logits = self.model(**{name: value.to(device) for name, value in batch.items()}).logits
                found[rows] = self._pool(logits, owners, len(rows)).cpu()
        return found

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[str] | list[list[str]]:
        """Return the most probable class of each text, or the labels that more likely hold than not."""
        table = self.probabilities(texts, pairs)
        if self.reading.task == "single_label":
            return [self.names[number] for number in table.argmax(-1).tolist()]
        return [[self.names[i] for i in row.nonzero().flatten().tolist()] for row in table > 0.5]

    def _pool(self, logits: Tensor, owners: Tensor, count: int) -> Tensor:
        reading = self.reading
        pool: Any = class_log_probs if reading.task == "single_label" else label_log_probs
        log_probs = pool(logits, owners, count, pooling=reading.pooling, temperature=reading.temperature)
        found: Tensor = log_probs if reading.task == "single_label" else log_probs[0]
        return found.exp()
