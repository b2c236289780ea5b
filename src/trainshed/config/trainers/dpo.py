"""Parameters of direct preference optimization (arXiv 2305.18290). Left out: the trainer."""

from typing import ClassVar

from pydantic import Field

from trainshed.config.schema import INPUT, Count
from trainshed.config.trl import TRLParameters


class DPOParameters(TRLParameters):
    """What DPO takes besides the arguments of TRL's `DPOConfig`."""

    arguments_table: ClassVar[str | None] = "trl.DPOConfig"

    max_prompt_length: Count | None = None
    """Cut longer prompts to their last so many tokens; the libraries no longer do it themselves."""
    reference_model: str | None = Field(default=None, json_schema_extra=INPUT)
    """The policy is kept near this model: a directory or hub name; the model as it starts when not set."""
