"""Parameters of training a Mamba-2 language model (arXiv 2405.21060), and the shape of one to build.

Left out: building and loading it (`models.mamba`), and the trainer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from trainshed.config.schema import Count, ModelSection, Section
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.errors import ConfigError

#: keys of ``model`` that a Mamba has no use for, or that its kernels would pass by
_WITHOUT_USE = frozenset({"attn_implementation", "intermediate_size", "num_labels", "load_in_4bit"})
_HEAD_DIM = 64
#: parameters that shape a model to build
_SHAPE_KEYS = frozenset({"state_size", "head_dim", "expand", "n_groups", "conv_kernel", "chunk_size"})


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most ``most``."""
    return max(n for n in range(1, most + 1) if number % n == 0)


@dataclass(frozen=True)
class Mamba2Shape:
    """The shape of a Mamba-2 language model; a `ConfigError` says what of it does not go together.

    Parameters
    ----------
    hidden_size
        Width of the residual stream.
    num_layers
        Mamba-2 blocks. There is no feed-forward part: a transformer has half as many layers of this width for
        the same number of weights.
    head_dim
        Width of a head (P in the paper); there are ``expand * hidden_size / head_dim`` of them.
    state_size
        Numbers that each channel of a head remembers (N in the paper).
    expand
        Width inside a block over `hidden_size`.
    n_groups
        Groups of heads that share what goes into and out of the state (B and C in the paper).
    conv_kernel
        Tokens that the convolution before the state sees.
    chunk_size
        Tokens that are computed as one matrix product; decides speed and memory, and nothing else.
    """

    hidden_size: int = 192
    num_layers: int = 8
    head_dim: int = _HEAD_DIM
    state_size: int = 64
    expand: int = 2
    n_groups: int = 1
    conv_kernel: int = 4
    chunk_size: int = 64

    def __post_init__(self) -> None:
        if self.inner_size % self.head_dim:
            near = largest_divisor(self.inner_size, self.head_dim)
            raise ConfigError(
                f"{self.expand} x {self.hidden_size} does not divide into heads of {self.head_dim}",
                where="training.head_dim",
                fix=f"a divisor of {self.inner_size}, such as {near}",
            )
        if self.num_heads % self.n_groups:
            raise ConfigError(
                f"{self.num_heads} heads do not divide into {self.n_groups} groups",
                where="training.n_groups",
                fix=f"a divisor of {self.num_heads}; there are expand x hidden_size / head_dim heads",
            )

    @property
    def inner_size(self) -> int:
        """Width inside a block."""
        return self.expand * self.hidden_size

    @property
    def num_heads(self) -> int:
        """Heads of a block."""
        return self.inner_size // self.head_dim


class MambaParameters(PretrainParameters):
    """What training a Mamba takes besides the arguments of `transformers.TrainingArguments`.

    Of the section ``model``, ``hidden_size``, ``num_layers`` and ``num_heads`` shape a model to build; what
    only Mamba-2 has stands here.
    """

    reads: ClassVar[frozenset[str]] = frozenset(
        {"data", *(f"model.{key}" for key in ModelSection.model_fields if key not in _WITHOUT_USE)}
    )

    block_size: Annotated[int, Field(ge=2)] = 256
    """Tokens of one training row; a longer document is cut into several."""
    overlap: Count | None = None
    """Tokens that a row repeats of the one before, of the same document; an eighth of `block_size` when not
    set. They are read and not learnt again, so that every token counts once. At least 1, for nothing predicts
    the first token of a row."""
    packing: bool = False
    """Refused when true: texts in one row would leak into one another, because the library does not clear the
    state where another one begins. Rows of like length are batched together instead."""
    state_size: Count = 64
    """Numbers that each channel remembers, of a model to build (N in the paper)."""
    head_dim: Count | None = None
    """Width of a head, of a model to build; `expand * hidden_size / model.num_heads` where that is set, else
    the largest divisor of `expand * hidden_size` up to 64."""
    expand: Count = 2
    """Width inside a block over `model.hidden_size`, of a model to build."""
    n_groups: Count = 1
    """Groups of heads with one B and C each, of a model to build."""
    conv_kernel: Annotated[int, Field(ge=2)] = 4
    """Tokens that the convolution sees, of a model to build."""
    chunk_size: Count = 64
    """Tokens that are computed as one matrix product, of a model to build; decides speed and memory."""

    @property
    def repeated(self) -> int:
        """Tokens that a row repeats of the one before."""
        return max(1, self.block_size // 8) if self.overlap is None else self.overlap

    @model_validator(mode="after")
    def _rows(self) -> Self:
        if self.packing:
            raise ValueError(
                "`packing` would let texts leak into one another: a Mamba's state is not cleared where "
                "another text begins in a row; leave it out"
            )
        if self.repeated >= self.block_size:
            raise ValueError(f"`overlap` {self.overlap} is not below `block_size` {self.block_size}")
        return self

    def check_with(self, sections: Mapping[str, Section]) -> None:
        """Check the shape of a model to build, and that there is none beside a checkpoint.

        Raises
        ------
        ConfigError
            Names the key.
        """
        model = sections["model"]
        assert isinstance(model, ModelSection)
        if model.model_name_or_path is not None:
            if given := sorted(_SHAPE_KEYS & self.model_fields_set):
                raise ConfigError(
                    f"{given[0]} shapes a model to build, and model.model_name_or_path names one",
                    where=f"training.{given[0]}",
                    fix="leave one of them out",
                )
            return
        self.shape(model)
        if model.max_length is not None and self.block_size > model.max_length:
            raise ConfigError(
                f"rows of {self.block_size} tokens are longer than model.max_length {model.max_length}",
                where="training.block_size" if "block_size" in self.model_fields_set else "model.max_length",
                fix=f"training.block_size: {model.max_length}, or no model.max_length: a Mamba needs none",
            )

    def shape(self, model: ModelSection) -> Mamba2Shape:
        """Return the shape of the model to build.

        Raises
        ------
        ConfigError
            When widths, heads and groups do not go together; names the key.
        """
        hidden_size = model.hidden_size or Mamba2Shape.hidden_size
        inner, heads = self.expand * hidden_size, model.num_heads
        if heads and inner % heads:
            raise ConfigError(
                f"a width of {self.expand} x {hidden_size} does not divide into {heads} heads",
                where="model.num_heads",
                fix=f"a divisor of {inner}",
            )
        head_dim = self.head_dim or (inner // heads if heads else largest_divisor(inner, _HEAD_DIM))
        if heads and heads * head_dim != inner:
            raise ConfigError(
                f"{heads} heads of {head_dim} make a width of {heads * head_dim}, not {self.expand} x "
                f"{hidden_size} = {inner}",
                where="training.head_dim",
                fix=f"{inner // heads}, or leave it or model.num_heads out",
            )
        return Mamba2Shape(
            hidden_size=hidden_size,
            num_layers=model.num_layers or Mamba2Shape.num_layers,
            head_dim=head_dim,
            state_size=self.state_size,
            expand=self.expand,
            n_groups=self.n_groups,
            conv_kernel=self.conv_kernel,
            chunk_size=self.chunk_size,
        )
