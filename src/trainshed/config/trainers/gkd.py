"""Parameters of generalized knowledge distillation (arXiv 2306.13649). Left out: the trainer."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trainshed.config.schema import Count, Share, Temperature
from trainshed.config.trl import TaughtParameters

_ROWS = "rows are prompts with completions, and the loss looks at the completion"
_LOSS = "the loss is the divergence from the teacher; training.beta chooses which"


class GKDParameters(TaughtParameters):
    """What GKD takes besides the arguments of TRL's `GKDConfig`.

    `lmbda` is the share of batches on completions of the student's own (else those of the data, or with
    `seq_kd` the teacher's), `beta` the divergence: 0 is KL(teacher, student), 1 is KL(student, teacher),
    between them the generalized Jensen-Shannon divergence.
    """

    arguments_table: ClassVar[str | None] = "trl.experimental.gkd.GKDConfig"
    # fields of SFTConfig that TRL's GKD trainer takes and does not read, or that have no meaning with it
    hidden_arguments: ClassVar[Mapping[str, str]] = {
        **TaughtParameters.hidden_arguments,
        **dict.fromkeys(("packing", "packing_strategy", "padding_free", "eval_packing"), _ROWS),
        **dict.fromkeys(("assistant_only_loss", "completion_only_loss", "dataset_text_field"), _ROWS),
        **dict.fromkeys(("loss_type", "router_aux_loss_coef"), _LOSS),
        "dataset_kwargs": "the data is prepared before the training",
        "truncation_mode": "the beginning of a prompt that is too long is cut",
        "shuffle_dataset": "rows come in an order that follows from the seed",
        "chat_template_path": "put chat_template.jinja beside the model",
        "eos_token": "the tokenizer says which token ends a text",
        "pad_token": "the tokenizer says which token pads",
        "pad_to_multiple_of": "sequences are padded to the longest of their batch",
    }
    bounds: ClassVar[Mapping[str, Any]] = {
        "lmbda": Share,
        "beta": Share,
        "temperature": Temperature,
        "max_new_tokens": Count,
        "max_length": Count,
    }

    loss_temperature: Temperature = 1.0
    """Divides the logits of both models in the divergence; `temperature` is that of the sampling."""
