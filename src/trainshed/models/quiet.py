"""Loading, saving and preparing data without the libraries' own progress bars, which would break ours."""

import contextlib
import sys
from collections.abc import Iterator

from transformers.utils import logging


@contextlib.contextmanager
def no_library_bars() -> Iterator[None]:
    """Turn the progress bars of transformers and datasets off for the block, then back on if they were on."""
    datasets = sys.modules.get("datasets")  # importing it takes a second
    shown = logging.is_progress_bar_enabled()
    mapped = datasets is not None and datasets.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if datasets is not None:
        datasets.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
        if datasets is not None and mapped:
            datasets.enable_progress_bar()


@contextlib.contextmanager
def no_library_warnings() -> Iterator[None]:
    """Keep transformers from printing what is checked here, such as a head that is meant to be new."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
