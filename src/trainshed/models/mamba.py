"""Mamba-2 language models: built with random weights, loaded, and read with in constant memory.

The architecture is the library's `Mamba2ForCausalLM` (Dao and Gu 2024, arXiv 2405.21060, section 7), the
first weights those of the paper's own code, which the library's differ from. Mamba-1 (arXiv 2312.00752) is
taken by its fast paths alone. Left out: training (`trainers.mamba`), and packing several texts into one row,
for which the library has no way of clearing the state without its kernels.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM, PreTrainedTokenizerBase

from trainshed.config.schema import ModelSection
from trainshed.config.trainers.mamba import Mamba2Shape
from trainshed.errors import ConfigError, MissingExtraError
from trainshed.models.causal_lm import LoraSettings, add_lora, load_causal_lm
from trainshed.models.sections import lora_settings

#: linear layers that adapters reach: the kernels take the weights of the others past any adapter
LORA_TARGETS = {"mamba": ("in_proj", "x_proj"), "mamba2": ("in_proj",)}
#: |A| of a head is drawn from here (the paper's code, ``A_init_range``)
_DECAY = (1.0, 16.0)
_EMBEDDING_STD = 0.02


def build_mamba2(
    tokenizer: PreTrainedTokenizerBase,
    shape: Mamba2Shape,
    *,
    max_length: int | None = None,
    tie: bool = True,
    seed: int,
) -> Mamba2ForCausalLM:
    """Build a Mamba-2 language model with random weights, in float32 and evaluation mode.

    Parameters
    ----------
    tokenizer
        Gives the vocabulary's size and the ids that pad and end a text.
    shape
        Its widths, layers and heads.
    max_length
        Longest text in tokens, for those who ask its configuration; by itself it reads any length.
    tie
        Use the input embeddings as the output layer too.
    seed
        Decides the weights; the global random state is left as it was.
    """
    config = Mamba2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_heads=shape.num_heads,
        head_dim=shape.head_dim,
        state_size=shape.state_size,
        expand=shape.expand,
        n_groups=shape.n_groups,
        conv_kernel=shape.conv_kernel,
        chunk_size=shape.chunk_size,
        initializer_range=_EMBEDDING_STD,
        tie_word_embeddings=tie,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if max_length is not None:
        config.max_position_embeddings = max_length
    # transformers draws initial weights from the global generators
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Mamba2ForCausalLM(config)
        draw_weights(model)
    return model.eval()


def draw_weights(model: Mamba2ForCausalLM) -> None:
    """Draw first weights as the paper's code does, from the global generator.

    That is ``mamba_ssm/modules/mamba2.py`` and ``models/mixer_seq_simple.py``. The library draws the
    projection into a block with a standard deviation that does not depend on the width, begins the
    convolution's bias at 0, and counts A from 1 to the number of heads: of many, most hardly remember.
    """
    with torch.no_grad():
        for block in model.backbone.layers:
            mixer = block.mixer
            for part in (mixer.in_proj, mixer.conv1d, mixer.out_proj):
                part.reset_parameters()  # PyTorch's own: uniform, by the inputs of a unit
            # one addition to the residual stream a layer, so that its variance stays (GPT-2, section 2.3);
            # not by `rescale_prenorm_residual`: with it the library divides again when it loads the weights
            mixer.out_proj.weight /= len(model.backbone.layers) ** 0.5
            mixer.A_log.copy_(torch.empty_like(mixer.A_log).uniform_(*_DECAY).log())


def load_mamba(
    section: ModelSection, *, device: str = "cpu", seed: int = 0
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the Mamba that a section names, ready to be trained.

    Parameters
    ----------
    section
        With ``model_name_or_path``. ``lora_target_modules: [all-linear]`` means `LORA_TARGETS`.
    device
        Where it will be trained.
    seed
        Decides the first weights of new adapters.

    Raises
    ------
    ConfigError
        When it is no Mamba.
    MissingExtraError
        When it is a Mamba-1 and its fast path is not there.
    ModelError
        When it cannot be loaded.
    """
    assert section.model_name_or_path is not None
    model, tokenizer = load_causal_lm(
        section.model_name_or_path,
        dtype=section.dtype,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        tokenizer=section.tokenizer_name_or_path,
    )
    check_trainable(model, where=section.model_name_or_path, device=device)
    lora = mamba_lora(section, model.config.model_type)
    if lora is not None and not hasattr(model, "peft_config"):
        model = add_lora(model, lora, seed=seed)
    return model, tokenizer


def mamba_lora(section: ModelSection, model_type: str) -> LoraSettings | None:
    """Return the adapters that a section asks for, on the layers of a Mamba that can have one."""
    lora = lora_settings(section)
    if lora is None or lora.target_modules != ("all-linear",):
        return lora
    return LoraSettings(
        r=lora.r,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=LORA_TARGETS[model_type],
        use_dora=lora.use_dora,
    )


def check_trainable(model: Any, *, where: str, device: str = "cpu") -> None:
    """Refuse what is no Mamba, and a Mamba-1 that would be trained token by token; choose its fast path.

    Parameters
    ----------
    model
        Plain or with adapters; the configuration of a Mamba-1 is changed to use the package ``mambapy``.
    where
        What an error names.
    device
        Where it will be trained; a GPU may have the fused kernels.

    Raises
    ------
    ConfigError, MissingExtraError
        As `load_mamba`.
    """
    inner = _plain(model)
    kind = inner.config.model_type
    if kind not in LORA_TARGETS:
        raise ConfigError(
            f"the model is a {kind}, not a Mamba",
            where=where,
            fix="execution.algorithm: pretrain, or a Mamba-2 (without a model one is built)",
        )
    if kind == "mamba2":
        return
    kernels = all(importlib.util.find_spec(name) for name in ("mamba_ssm", "causal_conv1d"))
    if importlib.util.find_spec("mambapy") is not None:
        inner.config.use_mambapy = True
        for block in inner.backbone.layers:
            block.mixer.use_mambapy = True
    elif not (kernels and device.startswith("cuda")):
        raise MissingExtraError(
            "the model is a Mamba-1, whose default path goes token by token: on a CPU a step of 512 tokens "
            "takes 17 s, 60 times as long as with a Mamba-2",
            where=where,
            fix="pip install 'trainshed[mamba]', which brings its parallel scan, or train a Mamba-2",
        )


class MambaReader:
    """Reads text piece by piece, with a memory that has one size however long the text is.

    Parameters
    ----------
    model
        A Mamba-2 or Mamba-1, plain or with adapters, in evaluation mode.

    Raises
    ------
    ConfigError
        When it is no Mamba: what a transformer remembers grows with the text.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        kind = _plain(model).config.model_type
        if kind not in LORA_TARGETS:
            raise ConfigError(f"a {kind} does not read in constant memory", fix="give a Mamba")
        # the library's scan of a Mamba-1 begins with an empty state, whatever was read before
        self._goes_on_in_pieces = kind == "mamba2"
        self._cache: Any = None

    def read(self, ids: Tensor, *, keep: int = 1) -> Tensor:
        """Read on.

        Parameters
        ----------
        ids
            ``[n, t]``: the next tokens of n texts that are read side by side, without padding.
        keep
            Positions to return, counted from the last; 0 for all.

        Returns
        -------
        Tensor
            ``[n, keep, vocabulary]``: what comes after each of these positions, as logits.
        """
        steps = ids.shape[1] if self._cache is not None and not self._goes_on_in_pieces else 1
        found = []
        for part in ids.tensor_split(steps, dim=1):
            with torch.no_grad():
                output = self.model(
                    input_ids=part, cache_params=self._cache, use_cache=True, logits_to_keep=keep
                )
            self._cache = output.cache_params
            found.append(output.logits)
        logits = torch.cat(found, dim=1)
        return logits[:, -keep:] if keep else logits

    @property
    def state_bytes(self) -> int:
        """Bytes that are remembered between two calls."""
        layers = [] if self._cache is None else self._cache.layers
        states = [
            state
            for layer in layers
            for kept in (layer.conv_states, layer.recurrent_states)
            for state in kept.values()
        ]
        return sum(state.numel() * state.element_size() for state in states if state is not None)


def stream(
    model: Any,
    prompt: Iterable[int],
    *,
    max_new_tokens: int,
    piece: int = 512,
    end: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[int]:
    """Read a prompt of any length and yield what comes after it, in memory that does not grow with either.

    Parameters
    ----------
    model
        As `MambaReader` takes it.
    prompt
        Token ids, at least one; read as they come, so they need not all be there.
    max_new_tokens
        Most tokens to yield.
    piece
        Tokens of the prompt that are read at once.
    end
        Token that ends a text; it is yielded last.
    temperature
        Divides the logits before a token is drawn; 0 takes the likeliest.
    seed
        Decides what is drawn.

    Raises
    ------
    ConfigError
        When the prompt is empty or the model no Mamba.
    """
    reader, tokens, logits = MambaReader(model), iter(prompt), None
    device = next(model.parameters()).device
    chance = torch.Generator().manual_seed(seed)
    while part := list(islice(tokens, piece)):
        logits = reader.read(torch.tensor([part], device=device))
    if logits is None:
        raise ConfigError("the prompt has no tokens", fix="give at least one")
    for number in range(max_new_tokens):
        token = _choose(logits[0, -1], temperature, chance)
        yield token
        if token == end:
            return
        if number + 1 < max_new_tokens:
            logits = reader.read(torch.tensor([[token]], device=device))


def _choose(logits: Tensor, temperature: float, chance: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    weights = (logits.double() / temperature).softmax(-1).cpu()
    return int(torch.multinomial(weights, 1, generator=chance))


def _plain(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
