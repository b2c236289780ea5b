"""Causal language models: loading them with their tokenizer, whole, in 4 bits, and with adapters.

Adapters are LoRA (arXiv 2106.09685), DoRA (arXiv 2402.09353), and LoRA over weights in 4 bits (QLoRA, arXiv
2305.14314), all through PEFT. Only safetensors are read. Left out: models with random weights (see `build`)
and generating text (see `rag.generator`).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainshed.errors import ModelError, require_extra
from trainshed.files import read_json
from trainshed.models.model_files import check_model_directory, local_directory
from trainshed.models.precision import resolve_device, resolve_dtype
from trainshed.models.quiet import no_library_bars

#: what the libraries raise for a model that they cannot load
LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError)
_ADAPTER_CONFIG = "adapter_config.json"
_HEADS = r"(.*\.)?(classifier|score|qa_outputs)(\..*)?"


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """New adapters.

    Parameters
    ----------
    r
        Rank.
    alpha
        Scale; the update is multiplied by ``alpha / r``.
    dropout
        Before the adapters.
    target_modules
        Ends of the names of modules that get one; ``("all-linear",)`` is every linear layer but the output.
    use_dora
        Weight-decomposed adapters.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("all-linear",)
    use_dora: bool = False


def load_causal_lm(  # noqa: PLR0913 - one keyword a property that a model is loaded with
    name_or_path: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    attn_implementation: str | None = None,
    lora: LoraSettings | None = None,
    load_in_4bit: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: str | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, in evaluation mode.

    Parameters
    ----------
    name_or_path
        A directory or hub name. A directory with ``adapter_config.json`` loads the base model that it names
        and the adapters, which can be trained on.
    dtype
        Number type of the weights, as `precision.resolve_dtype` takes it.
    device
        Where to put it; ``auto`` takes the best there is.
    attn_implementation
        ``eager``, ``sdpa``, ``flash_attention_2``; the model's own choice when None.
    lora
        Add these adapters; all other weights are frozen.
    load_in_4bit
        Quantise the frozen weights (NF4, double quantisation); needs a GPU.
    revision, trust_remote_code
        As in `transformers`.
    tokenizer
        Directory or hub name of the tokenizer, when it does not lie beside the model.
    seed
        Decides the first weights of new adapters.

    Returns
    -------
    tuple
        The model (a `peft.PeftModel` when it has adapters) and the tokenizer, which can pad: where the model
        knows no padding token, the one that ends a text is used, and masked as padding always is.

    Raises
    ------
    ModelError
        When something is missing or damaged; the message names the file.
    """
    where = resolve_device(device)
    path = local_directory(name_or_path)
    adapters = path if path is not None and (path / _ADAPTER_CONFIG).is_file() else None
    base = _base_of(adapters) if adapters else name_or_path
    if adapters or lora:
        require_extra("peft", "peft")
    options: dict[str, Any] = {
        "dtype": resolve_dtype(dtype, where),
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    if attn_implementation:
        options["attn_implementation"] = attn_implementation
    if load_in_4bit:
        options |= _four_bits(where, options["dtype"])
    model = _load_weights(base, options)
    if not load_in_4bit:
        model = model.to(where)
    words = load_tokenizer(
        tokenizer or _tokenizer_place(adapters, base),
        revision=None if tokenizer else revision,
        trust_remote_code=trust_remote_code,
    )
    allow_padding(words, model)
    if adapters:
        model = _load_adapters(model, adapters)
    elif lora:
        model = add_lora(model, lora, seed=seed, quantized=load_in_4bit)
    return model.eval(), words


def add_lora(
    model: Any,
    lora: LoraSettings,
    *,
    seed: int = 0,
    quantized: bool = False,
    task_type: str = "CAUSAL_LM",
) -> Any:
    """Return the model with new adapters; they change nothing until they are trained.

    Parameters
    ----------
    model
        Its own weights are frozen.
    lora
        Which adapters.
    seed
        Decides their first weights; the global random state is left as it was.
    quantized
        Whether the weights are in 4 bits, so that norms and outputs must be prepared for training.
    task_type
        PEFT's name of what the model does; with ``SEQ_CLS``, ``TOKEN_CLS`` or ``QUESTION_ANS`` the head is
        trained as a whole.
    """
    require_extra("peft", "peft")
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = list(lora.target_modules)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        use_dora=lora.use_dora,
        task_type=task_type,
        # heads are trained whole, so they take no adapter; PEFT leaves out only some of them by itself
        exclude_modules=None if task_type == "CAUSAL_LM" else _HEADS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise ModelError(
                f"adapters cannot be added: {str(error).splitlines()[0]}",
                where="model.lora_target_modules",
                fix="names of linear layers of the model, or all-linear",
            ) from error


def save_causal_lm(model: Any, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Write a directory that `load_causal_lm` loads: weights or adapters, and the tokenizer."""
    with no_library_bars():
        model.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))


def _base_of(adapters: Path) -> str:
    base = read_json(adapters / _ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            "the adapters do not name their base model",
            where=str(adapters / _ADAPTER_CONFIG),
            fix="set base_model_name_or_path in this file",
        )
    return str(base)


def _load_weights(name: str, options: dict[str, Any]) -> Any:
    path = local_directory(name)
    if path is not None:
        if not (path / "config.json").is_file():
            raise ModelError(
                "the directory has no config.json",
                where=str(path),
                fix="give a directory in the Hugging Face layout",
            )
        check_model_directory(path)
    options = {"use_safetensors": True, "output_loading_info": True, **options}
    try:
        with no_library_bars():
            model, info = AutoModelForCausalLM.from_pretrained(str(path or name), **options)
            if getattr(model.config, "rescale_prenorm_residual", False):
                # Transformers (5.23) scales a Mamba's loaded weights as if they had just been drawn
                model.config.rescale_prenorm_residual = False
                options["config"] = model.config
                model, info = AutoModelForCausalLM.from_pretrained(str(path or name), **options)
    except LOAD_ERRORS as error:
        raise ModelError(
            f"the model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(path or name),
            fix="give a directory of a causal language model or a hub name that this machine can reach",
        ) from error
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        bad = missing or sorted(str(key) for key in info["mismatched_keys"])
        raise ModelError(
            f"{len(bad)} of the model's weights are missing or of another shape, such as {bad[0]}",
            where=str(path or name),
            fix="give weights that fit config.json",
        )
    return model


def _tokenizer_place(adapters: Path | None, base: str) -> str:
    has_own = adapters is not None and (adapters / "tokenizer_config.json").is_file()
    return str(adapters) if has_own else base


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a directory or hub name; a `ModelError` says why it cannot be."""
    path = local_directory(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path or name), revision=revision, trust_remote_code=trust_remote_code
        )
    # the Rust library raises bare Exception for a file that it cannot parse
    except Exception as error:
        raise ModelError(
            f"the tokenizer cannot be loaded: {(str(error).strip() or repr(error)).splitlines()[0]}",
            where=str(path or name),
            fix="set model.tokenizer_name_or_path, or save the tokenizer beside the model",
        ) from error
    return tokenizer


def allow_padding(tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Give the tokenizer a padding token without adding one, so that the embeddings keep their size."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                "the tokenizer has neither a padding token nor one that ends a text",
                where=str(tokenizer.name_or_path),
                fix="set eos_token in its tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.pad_token_id = tokenizer.pad_token_id


def _load_adapters(model: Any, path: Path) -> Any:
    from peft import PeftModel

    check_model_directory(path, "adapter_model")
    try:
        with no_library_bars():
            return PeftModel.from_pretrained(model, str(path), is_trainable=True)
    except LOAD_ERRORS as error:
        raise ModelError(
            f"the adapters cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(path),
            fix="give adapters that were trained on this base model",
        ) from error


def _four_bits(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    if device.type != "cuda":
        raise ModelError(
            f"weights in 4 bits need a GPU with CUDA; the device is {device.type}",
            where="model.load_in_4bit",
            fix="set model.load_in_4bit: false, or execution.device: cuda on a machine with a GPU",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "weights in 4 bits need the Python package 'bitsandbytes'",
            where="model.load_in_4bit",
            fix="pip install bitsandbytes",
        )
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if dtype == torch.float32 else dtype
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": config, "device_map": {"": device}}
