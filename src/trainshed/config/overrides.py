"""``section.key=value`` from the command line, laid over a configuration.

Values are YAML. Stages are reached as ``pipeline.stage.section.key``. Left out: whether the keys exist, which
is checked with the rest of the configuration.
"""

from collections.abc import Iterable

from trainshed.config.documents import Document
from trainshed.config.yaml_source import KeyPath, parse_value
from trainshed.errors import ConfigError

#: the place that messages name
COMMAND_LINE = "command line"


def parse_override(text: str) -> tuple[tuple[str, ...], object]:
    """Return key path and value of one ``section.key=value``.

    Raises
    ------
    ConfigError
        When it is not of that form.
    """
    path, equals, value = text.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(
            f"not an override: {text!r}",
            where=COMMAND_LINE,
            fix="section.key=value, such as training.learning_rate=1e-5",
        )
    return keys, parse_value(value, f"{COMMAND_LINE}, {path.strip()}")


def read_overrides(texts: Iterable[str]) -> Document:
    """Return the document that overrides make; a later one wins over an earlier one."""
    document = Document(COMMAND_LINE)
    for text in texts:
        path, value = parse_override(text)
        one = Document(COMMAND_LINE)
        one.put(path, value, {(): COMMAND_LINE})
        apply_overrides(document, one)
    return document


def apply_overrides(document: Document, overrides: Document) -> None:
    """Lay overrides over a document, in place; what they set replaces what stood there.

    A mapping in an override replaces a mapping in the file only key by key.
    """
    _lay(document, overrides, ())


def _lay(document: Document, overrides: Document, path: KeyPath) -> None:
    value = overrides.get(path) if path else overrides.data
    for key, inner in value.items():
        here = (*path, key)
        if isinstance(inner, dict) and isinstance(document.get(here), dict):
            _lay(document, overrides, here)
        else:
            document.put(here, inner, {(): overrides.place(here), **overrides.places_below(here)})
