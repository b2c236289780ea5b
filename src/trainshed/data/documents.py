"""Documents from files: ``.txt``, ``.md``, ``.html``, ``.pdf`` and ``.jsonl``, in the order of their names.

What cannot be read is an error; a file without text (empty, or a scan) is left out and named at the end.
Left out: text recognition, tables, and cutting (see `chunking`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from trainshed.data.jsonl import json_type, read_jsonl
from trainshed.errors import DataError, require_extra
from trainshed.progress import say

_NAMED_FILES = 5


@dataclass(frozen=True, slots=True)
class Document:
    """A whole text and where it comes from.

    Attributes
    ----------
    doc_id
        Path below the directory read, or the id that a JSON line gives.
    text
        All of it.
    title
        From the document itself, else its file name without the ending.
    source
        Path below the directory read, or what a JSON line gives.
    """

    doc_id: str
    text: str
    title: str = ""
    source: str = ""


def read_documents(path: Path) -> Iterator[Document]:
    """Read a file, or every document in a directory and below, sorted by path.

    Files of other kinds and hidden ones are passed over. Lines of ``.jsonl`` are documents of their own, with
    ``text`` and optionally ``doc_id`` (or ``id``), ``title`` and ``source``.

    Raises
    ------
    DataError
        When the path or all text is missing, a file is not UTF-8 or damaged, or an id occurs twice.
    MissingExtraError
        When there is a ``.pdf`` and ``pypdf`` is not installed.
    """
    files = list(_files(path))
    empty: list[str] = []
    places: dict[str, str] = {}
    for file, name in files:
        documents = list(_READERS[file.suffix.lower()](file, name))
        if not documents:
            empty.append(name)
        for document in documents:
            if document.doc_id in places:
                raise DataError(
                    f"the document id {document.doc_id!r} stands in {places[document.doc_id]} already",
                    where=str(file),
                    fix="ids that are unique in all files",
                )
            places[document.doc_id] = name
            yield document
    if empty:
        named = ", ".join(empty[:_NAMED_FILES]) + (", ..." if len(empty) > _NAMED_FILES else "")
        say(f"left out {len(empty)} of {len(files)} files in {path} that hold no text: {named}")
    if not places:
        raise DataError(
            "no document holds any text", where=str(path), fix="documents with text; scans need OCR first"
        )


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield (file, name to call it) of the kinds that can be read."""
    known = ", ".join(_READERS)
    if path.is_file():
        if path.suffix.lower() not in _READERS:
            raise DataError(
                f"cannot read a {path.suffix or 'file without ending'}",
                where=str(path),
                fix=f"one of {known}",
            )
        yield path, path.name
        return
    if not path.is_dir():
        raise DataError(
            "the documents do not exist", where=str(path), fix="the path of a directory or a file"
        )
    found = False
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).parts):
        parts = file.relative_to(path).parts
        if (
            file.is_file()
            and file.suffix.lower() in _READERS
            and not any(part.startswith(".") for part in parts)
        ):
            found = True
            yield file, "/".join(parts)
    if not found:
        raise DataError("the directory holds no document", where=str(path), fix=f"files that end in {known}")


def _decode(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}",
            where=str(file),
            fix="convert it, such as with: iconv -f latin1 -t utf-8",
        ) from error


def _read_text(file: Path, name: str) -> Iterator[Document]:
    text = _decode(file)
    if text.strip():
        yield Document(name, text, file.stem, name)


def _read_markdown(file: Path, name: str) -> Iterator[Document]:
    text = _decode(file)
    if text.strip():
        yield Document(name, text, markdown_title(text) or file.stem, name)


def markdown_title(text: str) -> str:
    """Return the first heading of a Markdown text that is not in a code block, or an empty string."""
    fenced, before = False, ""
    for line in text.splitlines():
        if re.match(r" {0,3}(```|~~~)", line):
            fenced = not fenced
        elif not fenced:
            if heading := re.match(r" {0,3}#{1,6}\s+(.*?)\s*#*\s*$", line):
                return heading.group(1)
            if before.strip() and re.match(r" {0,3}(=+|-{2,})\s*$", line):
                return before.strip()
        before = "" if fenced else line
    return ""


def _read_html(file: Path, name: str) -> Iterator[Document]:
    title, text = html_text(_decode(file))
    if text:
        yield Document(name, text, title or file.stem, name)


def html_text(page: str) -> tuple[str, str]:
    """Return the title of an HTML page (or its first heading) and the text that a reader sees."""
    parser = _PageText()
    parser.feed(page)
    parser.close()
    return parser.result()


class _PageText(HTMLParser):
    """Collects text; blocks part lines, scripts and styles are dropped."""

    _HIDDEN = frozenset({"head", "script", "style", "template", "noscript", "svg"})
    _IN_HEAD = frozenset({"title", "meta", "link", "base", "script", "style", "noscript", "template"})
    _INLINE = frozenset(
        {
            "a",
            "abbr",
            "b",
            "bdi",
            "bdo",
            "cite",
            "code",
            "data",
            "del",
            "dfn",
            "em",
            "font",
            "i",
            "ins",
            "kbd",
            "mark",
        }
        | {
            "q",
            "rp",
            "rt",
            "ruby",
            "s",
            "samp",
            "small",
            "span",
            "strong",
            "sub",
            "sup",
            "time",
            "tt",
            "u",
            "var",
            "wbr",
        }
    )
    _BLANK_LINE = frozenset(
        {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "pre", "blockquote", "div"}
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._titles: dict[str, str] = {}
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN or tag in ("title", "h1", "pre"):
            self._open.append(tag)
        # `</head>` and `</title>` may be left away: what shows ends them
        if tag not in self._IN_HEAD and "head" in self._open and tag != "head":
            self._open = [tag for tag in self._open if tag not in ("head", "title")]
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]
        self._break(tag)

    def _break(self, tag: str) -> None:
        if tag not in self._INLINE:
            self._parts.append("\n\n" if tag in self._BLANK_LINE else "\n")

    def handle_data(self, data: str) -> None:
        for tag in ("title", "h1"):
            if tag in self._open and "svg" not in self._open:
                self._titles[tag] = self._titles.get(tag, "") + data
        if not self._HIDDEN.intersection(self._open) and "title" not in self._open:
            if "pre" not in self._open:
                data = re.sub(r"\s+", " ", data)
                if self._parts and self._parts[-1].endswith((" ", "\n")):
                    data = data.lstrip()
            if data:
                self._parts.append(data)

    def result(self) -> tuple[str, str]:
        text = re.sub(r"[ \t]+\n", "\n", "".join(self._parts))
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        title = self._titles.get("title", "").strip() or self._titles.get("h1", "")
        return " ".join(title.split()), text


def _read_pdf(file: Path, name: str) -> Iterator[Document]:
    require_extra("pypdf", "pdf")
    import pypdf
    import pypdf.errors

    try:
        reader = pypdf.PdfReader(file)
        text = "\n\n".join(page.extract_text() for page in reader.pages).strip()
        title = str((reader.metadata and reader.metadata.title) or "").strip()
    except (
        pypdf.errors.PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DataError(
            f"the PDF cannot be read: {error}",
            where=str(file),
            fix="a PDF that is neither damaged nor encrypted",
        ) from error
    if text:
        yield Document(name, text, title or file.stem, name)


def _read_lines(file: Path, name: str) -> Iterator[Document]:
    for number, row in read_jsonl(file):
        where = f"{file}, line {number}"
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            found = "missing" if "text" not in row else "empty" if isinstance(text, str) else json_type(text)
            raise DataError(
                f"the field 'text' is {found}; fields there: {', '.join(row)}",
                where=where,
                fix="text that is not empty",
            )
        identity = row.get("doc_id", row.get("id"))
        if identity is not None and not (isinstance(identity, str | int) and str(identity).strip()):
            raise DataError(
                f"the field 'doc_id' is {json_type(identity)}", where=where, fix="a string, or leave it out"
            )
        title, source = (str(row.get(key) or "") for key in ("title", "source"))
        doc_id = f"{name}:{number}" if identity is None else str(identity)
        yield Document(doc_id, text, title or doc_id, source or name)


_READERS = {
    ".txt": _read_text,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
    ".jsonl": _read_lines,
}
