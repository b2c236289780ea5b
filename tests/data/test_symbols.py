"""Reading the standard library's sources: names, signatures, and what is left out."""

import ast
import sys
from pathlib import Path

import pytest

from trainshed.data.symbols import Parameter, read_symbols, render_signature
from trainshed.errors import DataError

SOURCE = '''
"""Bees and what they do, at some length for the sake of it."""

def dance(self, angle, /, distance=2.5, *flowers, speed=-1, music=None, hive=HIVE, **rest):
    """Tell the others where the flowers are, as every bee can."""

if True:
    async def swarm(queen: str = "A", *, when: float = 3) -> None:
        """Leave the hive together with the old queen and settle."""

def _hidden():
    """Nothing that anybody outside of this module would want."""

def short():
    """Too short."""

class Hive:
    def __init__(self, size, comb=10):
        """Make a hive of so many bees and so many combs of wax."""

    @property
    def queen(self):
        """The queen that lives here, or None where there is none."""

    @staticmethod
    def build(wax, where='tree'):
        """Build one with the wax given, at the place that is named."""

    def copy(self, deep=False):
        """Tell the others where the flowers are,
        as every bee can."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    for name in names:
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text(SOURCE)
    for name in ("bees.py", "json/__main__.py", "json/_private.py", "test/__init__.py", "test/support.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('def leak():\n    """This must never be seen among the symbols of the library."""')
    (tmp_path / "_pydecimal.py").write_text(
        '"""Decimal arithmetic that is written in Python alone, slowly."""'
    )
    return tmp_path


def test_the_symbols_of_a_module(library: Path):
    symbols = {symbol.name: symbol for symbol in read_symbols(library) if symbol.module != "builtins"}
    assert {name: (symbol.kind, symbol.signature, symbol.group) for name, symbol in symbols.items()} == {
        "decimal": ("module", "", "decimal"),
        "json": ("module", "", "json"),
        "json.Hive": ("class", "(size, comb=10)", "json.Hive"),
        "json.Hive.build": ("method", "(wax, where='tree')", "json.Hive"),
        "json.Hive.queen": ("property", "", "json.Hive"),
        "json.dance": (
            "function",
            "(self, angle, /, distance=2.5, *flowers, speed=-1, music=None, hive=HIVE, **rest)",
            "json.dance",
        ),
        "json.swarm": ("function", "(queen='A', *, when=3)", "json.swarm"),
    }
    assert symbols["json.dance"].parameters == (
        Parameter("self"),
        Parameter("angle"),
        Parameter("distance", "2.5"),
        Parameter("speed", "-1", positional=False),
        Parameter("music", "None", positional=False),
        Parameter("hive", None, positional=False),
    )
    assert symbols["json.Hive"].source == "json/__init__.py"


def arguments(text: str) -> ast.arguments:
    node = ast.parse(f"def f{text}: pass").body[0]
    assert isinstance(node, ast.FunctionDef)
    return node.args


@pytest.mark.parametrize(
    ("text", "bound", "plain"),
    [
        ("(self)", "()", "(self)"),
        ("(self, /)", "()", "(self, /)"),
        ("(cls, a, /, b)", "(a, /, b)", "(cls, a, /, b)"),
        ("(*args)", "(*args)", "(*args)"),
        ("(self, *, a: int = 1, b)", "(*, a=1, b)", "(self, *, a=1, b)"),
    ],
)
def test_a_bound_signature_loses_its_first_parameter(text: str, bound: str, plain: str):
    assert render_signature(arguments(text))[0] == bound
    assert render_signature(arguments(text), bound=False)[0] == plain


def test_a_long_signature_is_cut_after_a_whole_parameter():
    names = [f"parameter_{number}" for number in range(40)]
    signature, parameters = render_signature(arguments(f"({', '.join(names)})"), bound=False)
    assert len(signature) <= 210
    assert signature == f"({', '.join(p.name for p in parameters)}, ...)"


def test_missing_sources_are_an_error_that_says_what_to_do(tmp_path: Path):
    (tmp_path / "json.py").write_text("")
    with pytest.raises(DataError, match="sources are missing: 1 modules found") as caught:
        read_symbols(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "keeps its .py files" in caught.value.fix


def test_a_source_that_does_not_parse_is_named(library: Path):
    (library / "heapq.py").write_text("def broken(:")
    with pytest.raises(DataError, match="cannot parse") as caught:
        read_symbols(library)
    assert caught.value.where == str(library / "heapq.py")
