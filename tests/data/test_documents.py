"""Reading documents of every kind, in order, and what is said of those that cannot be read."""

import sys
from pathlib import Path

import pytest

from trainshed.data.documents import Document, html_text, markdown_title, read_documents
from trainshed.errors import DataError, MissingExtraError


def make_pdf(text: str, title: str = "") -> bytes:
    """Return a PDF of one page that shows ``text``; an empty text gives a page without any."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        f"<< /Title ({title}) >>".encode(),
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        out
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
        + b"trailer << /Size %d /Root 1 0 R /Info 5 0 R >>\nstartxref\n%d\n%%%%EOF"
        % (len(objects) + 1, len(out))
    )


def test_a_directory_is_read_in_order_with_titles(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "z.txt").write_text("not read")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "b" / "notes.md").write_text("intro\n\n# Bees #\n\nThey dance.", encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfPlain \xc3\xbc.\r\nNext.")
    (tmp_path / "c.html").write_text("<title>Page &amp; more</title><p>One <b>two</b></p><script>x</script>")
    (tmp_path / "d.PDF").write_bytes(make_pdf("Hello PDF", "On paper"))
    (tmp_path / "e.jsonl").write_text(
        '{"text": "row one", "id": 5}\n\n{"text": "row two", "title": "Two", "source": "u"}\n'
    )
    assert list(read_documents(tmp_path)) == [
        Document("a.txt", "Plain ü.\nNext.", "a", "a.txt"),
        Document("b/notes.md", "intro\n\n# Bees #\n\nThey dance.", "Bees", "b/notes.md"),
        Document("c.html", "One two", "Page & more", "c.html"),
        Document("d.PDF", "Hello PDF", "On paper", "d.PDF"),
        Document("5", "row one", "5", "e.jsonl"),
        Document("e.jsonl:3", "row two", "Two", "u"),
    ]
    assert [document.doc_id for document in read_documents(tmp_path / "a.txt")] == ["a.txt"]


def test_files_without_text_are_left_out_and_named(tmp_path: Path, capsys):
    (tmp_path / "full.txt").write_text("text")
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "scan.pdf").write_bytes(make_pdf(""))
    assert [document.doc_id for document in read_documents(tmp_path)] == ["full.txt"]
    assert "left out 2 of 3 files" in capsys.readouterr().err
    (tmp_path / "full.txt").unlink()
    with pytest.raises(DataError, match="no document holds any text"):
        list(read_documents(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.txt", b"ok\xff", "not UTF-8: byte 0xff at position 2"),
        ("a.html", b"\xe9", "not UTF-8"),
        ("a.pdf", b"%PDF-1.4 no more", "PDF cannot be read"),
        ("a.pdf", b"", "PDF cannot be read"),
        ("a.jsonl", b'{"txt": "a"}', "field 'text' is missing; fields there: txt"),
        ("a.jsonl", b'{"text": 1}', "field 'text' is a number"),
        ("a.jsonl", b'{"text": "a", "id": []}', "field 'doc_id' is a list"),
        ("a.docx", b"", r"cannot read a \.docx"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes, what: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        list(read_documents(path))
    assert str(path) in caught.value.where
    assert caught.value.fix


def test_an_id_that_occurs_twice_is_an_error(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "id": "x"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two", "doc_id": "x"}\n')
    with pytest.raises(DataError, match=r"id 'x' stands in a\.jsonl already") as caught:
        list(read_documents(tmp_path))
    assert caught.value.where == str(tmp_path / "b.jsonl")


def test_nothing_to_read_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="do not exist"):
        list(read_documents(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no document"):
        list(read_documents(tmp_path))


def test_a_pdf_without_the_extra_names_the_install_command(tmp_path: Path, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(make_pdf("text"))
    monkeypatch.delitem(sys.modules, "pypdf", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"trainshed\[pdf\]"):
        list(read_documents(tmp_path))


@pytest.mark.parametrize(
    ("page", "title", "text"),
    [
        ("<h1>Head <i>line</i></h1><p>a\n b</p>", "Head line", "Head line\n\na b"),
        ("<head><title>T</title><style>p{}</style></head><body>x<br>y</body>", "T", "x\ny"),
        ("<head><title>T</title><p>no head end", "T", "no head end"),
        ("<pre>a  b\n  c</pre>", "", "a  b\n  c"),
        ("<ul><li>a<li>b</ul><script>if (a<b) {}</script>c &lt; d", "", "a\nb\n\nc < d"),
        ("<svg><title>icon</title><text>x</text></svg>word", "", "word"),
        ("", "", ""),
    ],
)
def test_html(page: str, title: str, text: str):
    found_title, found_text = html_text(page)
    assert found_title == title
    assert "\n".join(line for line in found_text.split("\n") if line) == text.replace("\n\n", "\n")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n# Two", "One"),
        ("```\n# comment\n```\n## Real ##", "Real"),
        ("Set\n===\ntext", "Set"),
        ("\n---\ntext", ""),
        ("#hashtag", ""),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(text: str, title: str):
    assert markdown_title(text) == title
