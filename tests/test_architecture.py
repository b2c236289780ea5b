"""The rules that the sources keep: sizes, names, layers, and the places that an algorithm touches."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trainshed
from trainshed.config.fields import training_keys
from trainshed.config.parameters import TrainerParameters
from trainshed.registry import REGISTRIES, TRAINER_PARAMETERS, TRAINERS, Registry

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "trainshed"
FILES = sorted(SOURCE.rglob("*.py"))
PROGRAMS = [*FILES, *sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 100
MAX_BODY_LINES = 50
VAGUE_MODULES = {"utils", "util", "common", "core", "helpers", "helper", "misc"}
VAGUE_IN_CLASSES = re.compile(r"Manager|Handler|Util|Helper|Base(?![a-z])")
#: a name of the system that people come from
GIVEN_NAMES = {"HuggingFaceRAGTrainerManager"}
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "sentence_transformers",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
)


def relative(path):
    return path.relative_to(ROOT).as_posix()


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


def body_lines(node):
    """Lines of a function without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def importable(target):
    """Whether a row's module exists, by its file alone; what other packages bring is not asked."""
    module, _, attribute = target.partition(":")
    if not module.startswith("trainshed."):
        return True
    path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        return False
    kinds = (ast.ClassDef, ast.FunctionDef)
    return attribute in {node.name for node in tree(path).body if isinstance(node, kinds)}


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_module_says_what_it_is_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert text.count("\n") <= MAX_FILE_LINES
    assert path.stem not in VAGUE_MODULES
    assert not VAGUE_MODULES & set(path.relative_to(ROOT).parts)


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_functions_are_short(path):
    for node in functions(path):
        place = f"{path.name}:{node.lineno} {node.name}"
        assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, place
        assert body_lines(node) <= MAX_BODY_LINES, place


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_class_names_say_something(path):
    names = {node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)}
    assert not {name for name in names - GIVEN_NAMES if VAGUE_IN_CLASSES.search(name)}


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != SOURCE], ids=relative)
def test_subpackages_export_nothing(path):
    if path.name == "__init__.py":
        (only,) = tree(path).body
        assert isinstance(only, ast.Expr)
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            assert not (node.module or "").startswith("trainshed.__init__")


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_nothing_is_left_open(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", text)
    assert "from pickle" not in text
    assert "import pickle" not in text


@pytest.mark.parametrize("path", [p for p in FILES if p.name not in ("__init__.py", "main.py")], ids=relative)
def test_what_is_inside_the_package_is_imported_from_where_it_is_defined(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "trainshed":
            assert {alias.name for alias in node.names} <= {"progress"}, "import the defining module"


def test_the_layers_hold():
    script = "from importlinter.cli import lint_imports_command as c; c()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_package_is_in_a_layer():
    layers = re.search(
        r"layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL
    )
    named = set(re.findall(r"\w+", layers.group(1)))
    there = {path.stem for path in SOURCE.glob("*.py") if path.stem != "__init__"}
    there |= {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert named == there


def test_importing_the_package_imports_nothing_heavy():
    script = f"import sys, trainshed; sys.exit(', '.join({{*{HEAVY!r}}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_are_sorted_and_complete():
    assert trainshed.__all__ == sorted(trainshed.__all__)
    assert set(trainshed.__all__) == {*trainshed._MODULES, "__version__"}
    assert set(trainshed.__all__) <= set(dir(trainshed))
    for name, module in trainshed._MODULES.items():
        assert importable_name(module, name), f"{name} is not in {module}"


def importable_name(module, name):
    path = SOURCE.joinpath(*module.split(".")).with_suffix(".py")
    kinds = (ast.ClassDef, ast.FunctionDef)
    return name in {node.name for node in tree(path).body if isinstance(node, kinds)}


def test_public_names_for_type_checkers_are_the_same():
    body = tree(SOURCE / "__init__.py").body
    (block,) = [node for node in body if isinstance(node, ast.If)]
    found = {alias.name: node.module for node in block.body for alias in node.names}
    assert found == {name: f"trainshed.{module}" for name, module in trainshed._MODULES.items()}


def test_a_public_name_is_the_object_of_its_module():
    from trainshed.errors import ConfigError

    assert trainshed.ConfigError is ConfigError
    with pytest.raises(AttributeError, match="no attribute 'RagSystem'"):
        _ = trainshed.RagSystem


def test_every_exception_is_in_the_drawn_tree():
    from trainshed import errors

    named = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    drawn = set(re.findall(r"(\w+Error)\b", errors.__doc__))
    assert named == drawn
    assert {name for name in trainshed._MODULES if name.endswith("Error")} == named


@pytest.mark.parametrize("registry", [*REGISTRIES.values(), TRAINER_PARAMETERS], ids=lambda r: r.kind)
def test_registered_names_stand_for_something(registry: Registry):
    assert registry.rows == dict(sorted(registry.rows.items()))
    for name, target in registry.rows.items():
        assert importable(target), f"{registry.kind} {name}: {target}"


@pytest.mark.parametrize("name", TRAINERS.rows)
def test_an_algorithm_is_in_its_six_places(name):
    module = TRAINER_PARAMETERS.rows[name].partition(":")[0]
    assert module == f"trainshed.config.trainers.{name}"
    assert TRAINERS.rows[name].startswith("trainshed.trainers.")
    assert (ROOT / "examples" / f"{name}.yaml").is_file()
    papers = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*`{name}`", papers, re.MULTILINE), f"docs/papers.md has no heading with `{name}`"
    stem = TRAINERS.rows[name].partition(":")[0].rpartition(".")[2]
    assert (ROOT / "tests" / "trainers" / f"test_{stem}.py").is_file()


def test_every_parameter_file_is_registered():
    files = {path.stem for path in (SOURCE / "config" / "trainers").glob("*.py")} - {"__init__"}
    assert files == set(TRAINER_PARAMETERS.rows) == set(TRAINERS.rows)


@pytest.mark.parametrize("name", TRAINER_PARAMETERS.rows)
def test_parameters_are_described(name):
    parameters = TRAINER_PARAMETERS.get(name)
    assert issubclass(parameters, TrainerParameters)
    assert all(field.description for field in parameters.model_fields.values())
    assert set(parameters.model_fields) <= set(training_keys(parameters))


@pytest.mark.parametrize("name", sorted({"lsr", "ralt"} & set(TRAINERS.rows)))
def test_a_trainer_and_its_parameters_know_each_other(name):
    trainer = TRAINERS.get(name)
    assert trainer.algorithm == name
    assert trainer.parameters_class is TRAINER_PARAMETERS.get(name)


def test_every_test_file_mirrors_a_source_file_or_a_rule():
    packages = {path.parent.relative_to(SOURCE).as_posix() for path in FILES}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        inside = path.parent.relative_to(ROOT / "tests").as_posix()
        assert inside == "." or inside in packages or inside == "seeds", relative(path)
