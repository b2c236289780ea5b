"""Parameters of language-model training from scratch or from a checkpoint. Left out: the trainer."""

from typing import ClassVar

from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import Count, Share


class PretrainParameters(TrainerParameters):
    """What training on plain text takes besides the arguments of `transformers.TrainingArguments`."""

    reads: ClassVar[frozenset[str]] = frozenset({"model", "data"})

    block_size: Count = 256
    """Tokens of one training row."""
    packing: bool = True
    """Fill rows with several texts, without attention between them."""
    prompt_loss_weight: Share = 1.0
    """Weight of the loss on a question's tokens, where an example has a question and an answer."""
    text_column: str = "text"
    """Column that holds the text."""
