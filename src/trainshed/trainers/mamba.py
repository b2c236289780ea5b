"""Training a Mamba-2 on long documents: `pretrain` with a model whose memory does not grow with the text.

Mamba-2 (Dao and Gu 2024, arXiv 2405.21060). A document longer than a row becomes several rows that overlap,
so that each but the first begins with something to remember; what is repeated has no weight in the loss. Left
out: packing (`models.mamba` says why), and carrying the state from row to row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from trainshed.config.resolved import RunConfig
from trainshed.config.trainers.mamba import MambaParameters
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.models.causal_lm import add_lora
from trainshed.models.mamba import build_mamba2, load_mamba, mamba_lora
from trainshed.models.precision import resolve_device
from trainshed.models.seeds import derive_seed
from trainshed.trainers.loop import Loop
from trainshed.trainers.packing import TokenRow, text_rows
from trainshed.trainers.pretrain import PretrainTrainer, make_tokenizer

#: ends of the names of weights that are no matrix, which decay would only pull from their meaning
_NOT_DECAYED = (".A_log", ".D", ".dt_bias", "norm_f.weight")


class MambaTrainer(PretrainTrainer):
    """Trains a Mamba; the parameters are those of `PretrainTrainer`, with `MambaParameters`."""

    algorithm: ClassVar[str] = "mamba"
    parameters_class: ClassVar[type[PretrainParameters]] = MambaParameters
    parameters: MambaParameters

    @classmethod
    def make_model(
        cls, config: RunConfig, own: MambaParameters, rows: Sequence[Mapping[str, str]]
    ) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load or build the Mamba of a run, and its tokenizer."""
        section, seed = config.model, config.execution.seed
        adapters = derive_seed(seed, cls.algorithm, "adapters")
        if section.model_name_or_path is not None:
            device = resolve_device(config.execution.device).type
            return load_mamba(section, device=device, seed=adapters)
        tokenizer = make_tokenizer(section, rows)
        model: Any = build_mamba2(
            tokenizer,
            own.shape(section),
            max_length=section.max_length,
            seed=derive_seed(seed, cls.algorithm, "weights"),
        )
        lora = mamba_lora(section, "mamba2")
        return (add_lora(model, lora, seed=adapters) if lora else model), tokenizer

    def cut_text(self, ids: Sequence[int]) -> list[TokenRow]:
        """Return a document's tokens as rows that overlap."""
        return text_rows(ids, self.parameters.block_size, self.parameters.repeated)

    def make_loop(self, args: TrainingArguments, callbacks: list[TrainerCallback]) -> Loop:
        """Return the loop of one training."""
        return _MambaLoop(self, args, callbacks)

    def evaluate(self) -> dict[str, float]:
        """Return ``eval/loss``, in nats a token, and ``eval/perplexity``."""
        found = super().evaluate()
        return {**found, "eval/perplexity": math.exp(found["eval/loss"])}

    def deciding_parameters(self) -> dict[str, Any]:
        """Return how documents are cut."""
        return {"block_size": self.parameters.block_size, "overlap": self.parameters.repeated}


class _MambaLoop(Loop):
    """The loop, with weight decay on matrices alone."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the weights that decay.

        The library goes by names, and would let the state's decay, the skip connection and the last norm
        shrink; the paper's code marks them (``_no_weight_decay``).
        """
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith(_NOT_DECAYED)]
