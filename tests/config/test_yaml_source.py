"""Reading YAML and JSON with the place of every key."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainshed.config.yaml_source import parse_json, parse_value, parse_yaml, read_source
from trainshed.errors import ConfigError

words = st.text("abcdefgh_", min_size=1, max_size=6)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("abc é#:-'\"{}[]\n\t0123456789.eE+~", max_size=12),
    st.sampled_from(
        ["no", "yes", "on", "off", "null", "true", "1e5", "2:00:00", "2020-01-01", "0o7", ".inf"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


def lines_below(value, path):
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from lines_below(inner, (*path, key))


@given(st.dictionaries(words, values, min_size=1, max_size=4))
def test_json_reads_as_json_and_every_key_has_its_line(data):
    source = parse_json(json.dumps(data, indent=1), "c.json")
    assert source.data == data
    assert set(source.lines) == set(lines_below(data, ()))


@given(st.dictionaries(words, st.dictionaries(words, st.integers(), max_size=4), min_size=1, max_size=4))
def test_lines_are_those_of_the_text(data):
    text, expected, line = "# a comment\n\n", {}, 3
    for section, keys in data.items():
        expected[(section,)] = line
        text += f"{section}:{'' if keys else ' {}'}\n"
        line += 1
        for key, value in keys.items():
            expected[(section, key)] = line
            text += f"  {key}: {value}\n\n"
            line += 2
    source = parse_yaml(text, "c.yaml")
    assert source.data == data
    assert source.lines == expected


@given(st.dictionaries(words, values, min_size=1, max_size=4))
def test_what_yaml_writes_quoted_comes_back(data):
    # quoting every text leaves only what both versions of YAML read alike
    text = yaml.safe_dump(data, default_style='"') if all_text(data) else json.dumps(data)
    assert parse_yaml(text, "c.yaml").data == data


def all_text(value):
    if isinstance(value, dict):
        return all(all_text(item) for item in value.values())
    if isinstance(value, list):
        return all(all_text(item) for item in value)
    return isinstance(value, str)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-6", 5e-6),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("2:00:00", "2:00:00"),
        ("2020-01-01", "2020-01-01"),
        ("010", 10),
        ("0x1f", 31),
        ("~", None),
        ("", None),
        ('"1"', "1"),
        ("[1, a, null]", [1, "a", None]),
        ("${stages.lsr}/model", "${stages.lsr}/model"),
        ("None", "None"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert parse_value(text, "here") == value


def test_merge_keys_and_anchors():
    text = "a: &a\n  x: 1\n  y: 2\nb:\n  <<: *a\n  y: 3\nc: *a\n"
    source = parse_yaml(text, "c.yaml")
    assert source.data == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
    assert source.lines[("b", "y")] == 6
    assert source.lines[("b", "x")] == 2


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("a: 1\na: 2\n", "the key 'a' is there twice, first in line 1", "c.yaml:2"),
        ("s:\n  k: 1\n  k: 1\n", "the key 'k' is there twice", "c.yaml:3"),
        ("a:\n\tb: 1\n", "indented with a tab", "c.yaml:2"),
        ("- 1\n", "is a list", "c.yaml:1"),
        ("5\n", "single value 5", "c.yaml:1"),
        ("# nothing\n", "is empty", "c.yaml"),
        ("a: [1\nb: 2\n", "not valid YAML", "c.yaml:2"),
        ("a: 1\nb: : 2\n", "not valid YAML", "c.yaml:2"),
        ("a: &x [*x]\n", "contains itself", "c.yaml:1"),
        ("a: !!python/name:os.system x\n", "tag", "c.yaml:1"),
        ("[1]: 2\n", "a key must be a word", "c.yaml:1"),
        ("a: 1\nb: \x01\n", "not valid YAML", "c.yaml:2"),
    ],
)
def test_what_is_no_configuration_is_told_with_its_line(text, what, where):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "c.yaml")
    assert what in caught.value.what
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("text", "where"), [('{\n"a": 1,\n}', "c.json:3"), ("[1]", "c.json:1"), ('{"a": 1, "a": 2}', "c.json")]
)
def test_bad_json(text, where):
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "c.json")
    assert caught.value.where == where


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigError) as caught:
            read_source(path)
        assert caught.value.where == str(path)


def test_json_with_tabs_and_escapes(tmp_path: Path):
    (tmp_path / "c.json").write_text('{\n\t"a": {"b\\ud83d\\ude00": 1}}')
    assert read_source(tmp_path / "c.json").data == {"a": {"b😀": 1}}
