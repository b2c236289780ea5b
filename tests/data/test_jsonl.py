"""JSON Lines in and out."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.data.jsonl import jsonl_text, read_jsonl, write_jsonl
from trainshed.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5))
def test_what_is_written_is_one_line_a_row_and_reads_back(rows):
    lines = jsonl_text(rows).split("\n")
    assert lines[-1] == ""
    assert [json.loads(line) for line in lines[:-1]] == rows


def test_rows_have_the_numbers_of_their_lines(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "\xe2\x80\xa8"}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "\u2028"})]


def test_compressed_and_plain_files_read_alike(tmp_path: Path):
    plain, packed = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.gz"
    write_jsonl(plain, [{"a": "ü"}, {"b": 2}])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_jsonl(plain)) == list(read_jsonl(packed)) == [(1, {"a": "ü"}), (2, {"b": 2})]


@pytest.mark.parametrize(
    ("content", "what", "line"),
    [
        (b'{"a": 1}\n{"a": \n', "not valid JSON", 2),
        (b'{"a": 1}\n\n["a"]\n', "holds a list", 3),
        (b'{"a": 1}\n{"a": "\xe9"}\n', "not UTF-8: byte 0xe9", 2),
        (b"12\n", "holds a number", 1),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, what: str, line: int):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        list(read_jsonl(path))
    assert caught.value.where == f"{path}, line {line}"
    assert caught.value.fix


def test_a_damaged_compressed_file_is_an_error(tmp_path: Path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    with pytest.raises(DataError, match="damaged"):
        list(read_jsonl(path))


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist") as caught:
        list(read_jsonl(tmp_path / "none.jsonl"))
    assert caught.value.where == str(tmp_path / "none.jsonl")
