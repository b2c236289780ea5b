"""Derived seeds."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from trainshed.models.seeds import derive_seed


def test_known_value_holds_in_every_process():
    code = "from trainshed.models.seeds import derive_seed; print(derive_seed(7, 'a', 'b'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive_seed(7, "a", "b") == 2367951477


@given(st.integers(0, 2**32 - 1), st.lists(st.text(max_size=5), max_size=3))
def test_in_range_and_repeatable(seed, names):
    assert 0 <= derive_seed(seed, *names) < 2**32
    assert derive_seed(seed, *names) == derive_seed(seed, *names)


def test_names_and_their_borders_count():
    assert (
        len(
            {
                derive_seed(0, "ab", "c"),
                derive_seed(0, "a", "bc"),
                derive_seed(0, "abc"),
                derive_seed(1, "abc"),
            }
        )
        == 4
    )
