"""What the documentation says holds: links, configurations, snippets, commands, the tree, the reference."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

import trainshed
from trainshed.cli.main import VERBS
from trainshed.config.fields import keys_of, training_keys
from trainshed.config.load import check_source
from trainshed.config.sweep import expand
from trainshed.config.yaml_source import parse_yaml
from trainshed.registry import TRAINER_PARAMETERS, load_attribute

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"(?:^|`|\$ |bin/)trainshed ((?:--\w+ \S+ )*)([a-z]+(?:-[a-z]+)*)\b([^`\n]*)", re.MULTILINE
)
#: a block with one of these sections is a configuration, others are parts of one
WHOLE = {"execution", "pipeline"}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def anchors(path):
    """The anchors that headings make, as MkDocs and GitHub write them."""
    text = FENCE.sub("", generated(path))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s+", "-", heading) for heading in plain}


@cache
def hook():
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "scripts" / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def generated(path):
    """A page as it is built."""
    return hook().on_page_markdown(path.read_text(encoding="utf-8"))


def blocks(language):
    found = []
    for path in PAGES:
        for number, (kind, text) in enumerate(FENCE.findall(path.read_text(encoding="utf-8"))):
            if kind == language:
                found.append(pytest.param(text, id=f"{relative(path)}-{number}"))
    return found


def whole_configurations():
    return [p for p in blocks("yaml") if {*yaml.safe_load(p.values[0])} & WHOLE]


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_lead_somewhere(path):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        linked = path if not place else (path.parent / place).resolve()
        assert linked.is_file(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_pages_are_in_the_navigation(path):
    if path.is_relative_to(DOCS):
        assert f" {path.relative_to(DOCS).as_posix()}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def with_files(text, place, monkeypatch):
    """Go to a directory that has the files that a configuration names."""
    monkeypatch.chdir(place)
    for name in re.findall(r"[\w/]+\.jsonl", text):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text('{"query": "q", "response": "r"}\n')
    for name in re.findall(r"(?:documents|harness_path): (\w+) ", text):
        (place / name).mkdir()


@pytest.mark.parametrize("text", whole_configurations())
def test_configurations_are_accepted(text, tmp_path, monkeypatch):
    with_files(text, tmp_path, monkeypatch)
    assert expand(check_source(parse_yaml(text, "documentation.yaml"), environ={}))


@pytest.mark.parametrize("text", blocks("yaml"))
def test_parts_of_configurations_name_known_sections(text, tmp_path, monkeypatch):
    with_files(text, tmp_path, monkeypatch)
    if not {*yaml.safe_load(text)} & WHOLE:
        source = parse_yaml(f"execution: {{algorithm: lsr}}\n{text}", "documentation.yaml")
        assert expand(check_source(source, environ={}))


@pytest.mark.parametrize("text", blocks("python"))
def test_snippets_compile_and_import_what_is_there(text):
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("trainshed"):
            continue
        for alias in node.names:
            if node.module == "trainshed":
                assert alias.name in trainshed.__all__
            else:
                path = ROOT.joinpath("src", *node.module.split(".")).with_suffix(".py")
                assert re.search(
                    rf"^(def|class) {alias.name}\b", path.read_text(encoding="utf-8"), re.MULTILINE
                )


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_commands_are_there(path):
    for before, verb, after in COMMAND.findall(path.read_text(encoding="utf-8")):
        assert verb in VERBS, f"trainshed {verb}"
        assert set(re.findall(r"--[a-z]+", before)) <= {"--import", "--debug"}
        command = load_attribute(VERBS[verb].target)
        if isinstance(command, click.Group) and after.split():
            command = command.commands[after.split()[0]]
        options = {name for p in command.params for name in p.opts}
        told = set(re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", after.partition("#")[0]))
        assert told <= {*options, "--help"}, f"trainshed {verb}{after}"


def test_make_targets_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{relative(path)}: make {target}"


def tree():
    """The paths that the README's tree lists."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [
        body for kind, body in FENCE.findall(text) if kind == "text" and body.startswith("src/trainshed/")
    ]
    parents, paths = {}, []
    for line in block.splitlines():
        name, about = re.fullmatch(r"(\s*\S+)\s+(\S.*)|(\s*\S+)", line).group(1, 2)
        name = name or line.rstrip()
        depth = (len(name) - len(name.lstrip())) // 2
        parents[depth] = name.strip()
        paths.append(("".join(parents[level] for level in range(depth + 1)), about))
    return paths


def test_the_tree_shows_what_is_there():
    listed = tree()
    for path, about in listed:
        assert (ROOT / path).exists(), path
        assert path.endswith("/") == (ROOT / path).is_dir()
        assert about or path == "src/trainshed/", f"{path} says nothing"
    source = ROOT / "src" / "trainshed"
    wanted = {f"src/trainshed/{path.name}" for path in source.glob("*.py")}
    wanted |= {f"src/trainshed/{path.parent.name}/" for path in source.glob("*/__init__.py")}
    wanted |= {f"{name}/" for name in ("examples", "tests", "docs", "benchmarks", "scripts")}
    assert wanted <= {path for path, _ in listed}


def test_the_reference_has_every_key_and_verb():
    page = generated(DOCS / "reference" / "configuration.md")
    for name, section in hook().SECTIONS.items():
        part = page.partition(f"\n## `{name}`")[2].partition("\n## ")[0]
        assert set(keys_of(section)) <= set(re.findall(r"^\| `(\w+)`", part, re.MULTILINE))
    for name in TRAINER_PARAMETERS.rows:
        parameters = TRAINER_PARAMETERS.get(name)
        part = page.partition(f"\n### `{name}`")[2].partition("\n### ")[0]
        assert set(parameters.model_fields) <= set(training_keys(parameters))
        assert set(parameters.model_fields) <= set(re.findall(r"^\| `(\w+)`", part, re.MULTILINE))
    verbs = re.findall(r"^## `trainshed ([\w-]+)`", generated(DOCS / "reference" / "cli.md"), re.MULTILINE)
    assert set(verbs) == set(VERBS)


def test_the_reference_shows_modules_that_are_there():
    for path in (DOCS / "reference").glob("*.md"):
        for module in re.findall(r"^::: (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert ROOT.joinpath("src", *module.split(".")).with_suffix(".py").is_file(), module


def test_what_is_not_available_is_refused_as_the_documentation_says():
    from trainshed.config.stages import PLANNED_KEYS, PLANNED_SECTIONS

    text = (DOCS / "coming-from.md").read_text(encoding="utf-8") + (DOCS / "architecture.md").read_text(
        encoding="utf-8"
    )
    for name in (PLANNED_SECTIONS | PLANNED_KEYS) - {"sweep"}:
        assert f"`{name}`" in text or f"execution.{name}" in text, name


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in ("src", "tests", "docs", "examples", "benchmarks", "scripts")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".yaml", ".yml", ".json"}
    ),
    ids=relative,
)
def test_no_file_names_a_place_on_one_machine(path):
    if path != Path(__file__):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(work|mnt|Users)/", text)
