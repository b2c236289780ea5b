"""The standard library's public symbols, read from its sources with `ast`: name, signature, docstring.

No described module is imported: what a class or function looks like comes from parsing the ``.py`` files, so
the result depends on the Python version alone and neither on the platform nor on what is installed. Types and
functions of `builtins` have no ``.py`` file; they are read from the interpreter, which has them anyway.

Left out: private names, tests, modules that distributions pack apart (``tkinter``, ``distutils`` …), the
tables of ``encodings``, symbols without a docstring, and extension modules written in C.
"""

import ast
import builtins
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import DataError

#: longest signature in characters; what follows is cut after a whole parameter
SIGNATURE_CHARACTERS = 200
_SKIPPED = frozenset(
    {
        *("antigravity", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data"),
        *("test", "tests", "this", "tkinter", "turtle", "turtledemo", "venv", "site", "sitecustomize"),
    }
)
#: private modules that hold the Python source of public ones
_PUBLIC_NAMES = {
    "_collections_abc": "collections.abc",
    "_py_abc": "abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_weakrefset": "weakref",
}
_BUILTIN_TYPES = (
    *("bool", "bytearray", "bytes", "classmethod", "complex", "dict", "enumerate", "filter", "float"),
    *("frozenset", "int", "list", "map", "memoryview", "object", "property", "range", "reversed", "set"),
    *("slice", "staticmethod", "str", "super", "tuple", "type", "zip"),
)
_MINIMUM_DOCSTRING = 40
#: a complete installation has several hundred modules; fewer mean that the sources were stripped
_MINIMUM_MODULES = 100


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a signature.

    ``default`` is the source text of a literal default, None where there is none or it is an expression.
    """

    name: str
    default: str | None = None
    positional: bool = True


@dataclass(frozen=True, slots=True)
class Symbol:
    """One documented symbol of the standard library.

    Attributes
    ----------
    name
        Qualified name, such as ``json.decoder.JSONDecoder.decode``.
    kind
        ``module``, ``class``, ``function``, ``method`` or ``property``.
    group
        The class that a method belongs to, else the name itself: what one split of the corpus holds together.
    signature
        Source of the parameters with their parentheses, without annotations and ``self``; empty for a module.
    parameters
        Those that the signature shows in full.
    docstring
        Cleaned and complete.
    source
        Where it stands, relative to the standard library, such as ``json/decoder.py``.
    """

    name: str
    kind: str
    group: str
    docstring: str
    module: str
    source: str
    signature: str = ""
    parameters: tuple[Parameter, ...] = ()


def stdlib_directory() -> Path:
    """Return the directory of this interpreter's standard library sources."""
    return Path(sysconfig.get_path("stdlib"))


def read_symbols(directory: Path | None = None) -> list[Symbol]:
    """Return every documented public symbol of the standard library, one a name and one a docstring.

    Parameters
    ----------
    directory
        The standard library's sources; those of this interpreter when None.

    Raises
    ------
    DataError
        When the sources are missing or stripped.
    """
    directory = directory or stdlib_directory()
    modules = list(_modules(directory))
    if len(modules) < _MINIMUM_MODULES:
        raise DataError(
            f"the standard library's sources are missing: {len(modules)} modules found as .py files",
            where=str(directory),
            fix="use a Python installation that keeps its .py files (python.org, pyenv, conda, a "
            "distribution's python3 packages), or set data.dataset_name to a dataset of your own",
        )
    symbols: dict[str, Symbol] = {}
    docstrings: set[str] = set()
    for symbol in _all_symbols(directory, modules):
        text = " ".join(symbol.docstring.split()).casefold()
        if len(text) >= _MINIMUM_DOCSTRING and symbol.name not in symbols and text not in docstrings:
            symbols[symbol.name] = symbol
            docstrings.add(text)
    return sorted(symbols.values(), key=lambda symbol: symbol.name)


def _all_symbols(directory: Path, modules: list[tuple[str, Path]]) -> Iterator[Symbol]:
    yield from _builtin_symbols()
    for module, path in modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources are not our business
            try:
                tree = ast.parse(path.read_bytes(), filename=str(path))
            except (SyntaxError, OSError) as error:
                raise DataError(
                    f"cannot parse a standard library source: {error}",
                    where=str(path),
                    fix="repair the Python installation",
                ) from error
        yield from _module_symbols(tree, module, path.relative_to(directory).as_posix())


def _modules(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield (public module name, file), sorted by name."""
    found = []
    for path in directory.rglob("*.py"):
        parts = list(path.relative_to(directory).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if not parts or parts[0] not in sys.stdlib_module_names:
            continue
        public = _PUBLIC_NAMES.get(".".join(parts), ".".join(parts))
        names = public.split(".")
        if not any(name in _SKIPPED or name.startswith("_") for name in names):
            found.append((public, path))
    return iter(sorted(found))


def _module_symbols(tree: ast.Module, module: str, source: str) -> Iterator[Symbol]:
    doc = ast.get_docstring(tree)
    if doc:
        yield Symbol(module, "module", module, doc, module, source)
    for node in _statements(tree.body):
        if node.name.startswith("_"):
            continue
        name = f"{module}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _class_symbols(node, name, module, source)
        elif doc := ast.get_docstring(node):
            signature, parameters = render_signature(node.args, bound=False)
            yield Symbol(name, "function", name, doc, module, source, signature, parameters)


def _class_symbols(node: ast.ClassDef, name: str, module: str, source: str) -> Iterator[Symbol]:
    members = [member for member in _statements(node.body) if not isinstance(member, ast.ClassDef)]
    constructor = next((member for member in members if member.name == "__init__"), None)
    doc = ast.get_docstring(node) or (ast.get_docstring(constructor) if constructor else None)
    if doc:
        signature, parameters = render_signature(constructor.args) if constructor else ("", ())
        yield Symbol(name, "class", name, doc, module, source, signature, parameters)
    for member in members:
        doc = ast.get_docstring(member)
        if member.name.startswith("_") or not doc:
            continue
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in member.decorator_list}
        if decorators & {"property", "cached_property", "abstractproperty", "DynamicClassAttribute"}:
            yield Symbol(f"{name}.{member.name}", "property", name, doc, module, source)
        else:
            signature, parameters = render_signature(member.args, bound="staticmethod" not in decorators)
            yield Symbol(f"{name}.{member.name}", "method", name, doc, module, source, signature, parameters)


def _statements(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the definitions of a body, also those under ``if`` and ``try``: those of every platform."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            handlers = [statement for h in getattr(node, "handlers", []) for statement in h.body]
            yield from _statements([*node.body, *handlers, *node.orelse, *getattr(node, "finalbody", [])])


def render_signature(args: ast.arguments, *, bound: bool = True) -> tuple[str, tuple[Parameter, ...]]:
    """Return a signature's source and its parameters, cut after `SIGNATURE_CHARACTERS`.

    Parameters
    ----------
    args
        The parsed parameters; annotations are left out.
    bound
        Whether the first one is ``self`` or ``cls``, which is left out too.
    """
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    defaults.extend(args.defaults)
    shown: list[tuple[str, Parameter | None]] = []
    for index, (arg, default) in enumerate(zip(positional, defaults, strict=True)):
        if index > 0 or not bound:
            shown.append(_render(arg.arg, default, positional=True))
        if index + 1 == len(args.posonlyargs) and shown:
            shown.append(("/", None))
    if args.vararg:
        shown.append((f"*{args.vararg.arg}", None))
    elif args.kwonlyargs:
        shown.append(("*", None))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        shown.append(_render(arg.arg, default, positional=False))
    if args.kwarg:
        shown.append((f"**{args.kwarg.arg}", None))
    return _cut_signature(shown)


def _cut_signature(shown: list[tuple[str, Parameter | None]]) -> tuple[str, tuple[Parameter, ...]]:
    length, parts, parameters = 0, [], []
    for text, parameter in shown:
        length += len(text) + 2
        if length > SIGNATURE_CHARACTERS:
            parts.append("...")
            break
        parts.append(text)
        if parameter:
            parameters.append(parameter)
    return f"({', '.join(parts)})", tuple(parameters)


def _render(name: str, default: ast.expr | None, *, positional: bool) -> tuple[str, Parameter]:
    if default is None:
        return name, Parameter(name, None, positional)
    text = ast.unparse(default)
    bare = default.operand if isinstance(default, ast.UnaryOp) else default
    literal = isinstance(bare, ast.Constant) and bare.value is not Ellipsis
    return f"{name}={text}", Parameter(name, text if literal else None, positional)


def _builtin_symbols() -> Iterator[Symbol]:
    for name in sorted(vars(builtins)):
        value = getattr(builtins, name)
        if name.startswith("_"):
            continue
        if name in _BUILTIN_TYPES:
            yield from _builtin_type(name, value)
        elif inspect.isbuiltin(value):
            signature, parameters = _text_signature(value, bound=False)
            doc = inspect.getdoc(value) or ""
            yield Symbol(
                f"builtins.{name}", "function", f"builtins.{name}", doc, "builtins", "", signature, parameters
            )


def _builtin_type(name: str, value: type) -> Iterator[Symbol]:
    group = f"builtins.{name}"
    doc = inspect.cleandoc(value.__doc__ or "")
    signature, parameters = _text_signature(value, bound=False)
    yield Symbol(group, "class", group, doc, "builtins", "", signature, parameters)
    for key in sorted(vars(value)):
        member = vars(value)[key]
        doc = inspect.cleandoc(getattr(member, "__doc__", None) or "")
        if key.startswith("_") or not doc:
            continue
        if inspect.isgetsetdescriptor(member) or inspect.ismemberdescriptor(member):
            yield Symbol(f"{group}.{key}", "property", group, doc, "builtins", "")
        else:
            signature, parameters = _text_signature(member, bound=True)
            yield Symbol(f"{group}.{key}", "method", group, doc, "builtins", "", signature, parameters)


def _text_signature(value: object, *, bound: bool) -> tuple[str, tuple[Parameter, ...]]:
    """Render what C code declares as its signature, such as ``($self, sep=None, maxsplit=-1)``."""
    text = getattr(value, "__text_signature__", None)
    if not text:
        return "", ()
    has_self = bool(re.match(r"\(\$\w+", text))
    text = re.sub(r"\$", "", text)
    try:
        node = ast.parse(f"def f{text}: pass").body[0]
    except SyntaxError:  # some C signatures use a notation of their own
        return "", ()
    assert isinstance(node, ast.FunctionDef)
    return render_signature(node.args, bound=bound and has_self)
