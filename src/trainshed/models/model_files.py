"""Whether a model directory holds weights that can be read, before a library is asked to read them.

Only safetensors are read: the format holds no code, and its header says how long the file must be. Left out:
hub names, which the hub client checks.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trainshed.errors import ModelError

#: names of weights that are pickles, which are not read
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")


def check_model_directory(path: Path, stem: str = "model") -> list[Path]:
    """Return the weights files of a directory after opening each one.

    Parameters
    ----------
    path
        A directory in the Hugging Face layout.
    stem
        ``model``, or ``adapter_model`` for adapters.

    Raises
    ------
    ModelError
        When there are none, one that the index names is missing, or one is damaged.
    """
    index = path / f"{stem}.safetensors.index.json"
    single = path / f"{stem}.safetensors"
    if index.is_file():
        files = _indexed(index)
    elif single.is_file():
        files = [single]
    else:
        pickles = [name for name in _PICKLES if (path / name).is_file()]
        raise ModelError(
            f"the directory has no {stem}.safetensors" + (f", only {pickles[0]}" if pickles else ""),
            where=str(path),
            fix="save it with save_pretrained, which writes safetensors"
            if pickles
            else "give a directory in the Hugging Face layout",
        )
    for file in files:
        check_weights_file(file)
    return files


def check_weights_file(path: Path) -> None:
    """Raise `ModelError` when a safetensors file is missing, cut short or not one at all."""
    if not path.is_file():
        raise ModelError("a weights file is missing", where=str(path), fix="copy the model anew")
    try:
        with safe_open(str(path), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"the weights file is damaged: {error}", where=str(path), fix="copy the model anew"
        ) from error


def _indexed(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            "the index of the weights is damaged", where=str(index), fix="copy the model anew"
        ) from error
    return [index.parent / name for name in sorted(set(names))]


def looks_like_path(name: str) -> bool:
    """Return whether a name can only mean a directory: it is absolute, or begins with ``.`` or ``~``."""
    return name.startswith(("/", ".", "~"))


def local_directory(name: str) -> Path | None:
    """Return the directory that a name means, None for a hub name, or raise when it does not exist."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if looks_like_path(name) or path.exists():
        raise ModelError(
            "the model directory does not exist" if not path.exists() else "this is a file, not a directory",
            where=str(path),
            fix="give a directory in the Hugging Face layout or a hub name",
        )
    return None
