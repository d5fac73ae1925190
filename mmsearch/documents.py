"""Text files (plain, Markdown, HTML, PDF) become parts of a few sentences."""

from __future__ import annotations

import codecs
import dataclasses
import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmsearch.cutting import cut
from mmsearch.errors import MediaError

__all__ = ["MAX_CHARACTERS", "Document", "TextPart", "read_text"]

MAX_CHARACTERS = 20_000_000
"""A document with more text is refused."""


@dataclasses.dataclass(frozen=True, slots=True)
class TextPart:
    """A few sentences, every run of blanks in them one space.

    ``start`` and ``end`` are character offsets in the text of the document as it was extracted: for a plain text
    its characters, for Markdown and HTML what is left without markup, for PDF the pages one after the other.
    ``page`` counts from 1 and is None where there are no pages.
    """

    text: str
    start: int
    end: int
    page: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """The parts of a text file in their order, at least one; its title, if it states one; and ``notes`` for its
    reader: what could not be read, or was read by guessing.
    """

    title: str | None
    parts: tuple[TextPart, ...]
    notes: tuple[str, ...] = ()


def read_text(data: bytes, name: Path) -> Document:
    """The text of a file, read as the suffix of ``name`` says and cut into parts of at most ``PART_TOKENS``.

    Raises ``MediaError`` if it is empty, binary, encrypted, damaged, too long, or has no text.
    """
    if not data:
        raise MediaError(name, "is empty (zero bytes)")
    notes: list[str] = []
    title: str | None = None
    pages: Iterable[tuple[int | None, str]]
    match name.suffix.lower():
        case ".pdf":
            title, pages = _read_pdf(data, name, notes)
        case ".html" | ".htm" | ".xhtml":
            title, text = _read_html(_decode(data, name, notes, _declared_charset(data)))
            pages = [(None, text)]
        case ".md" | ".markdown":
            title, text = _read_markdown(_decode(data, name, notes))
            pages = [(None, text)]
        case _:
            pages = [(None, _decode(data, name, notes))]
    parts: list[TextPart] = []
    offset = 0
    for page, text in pages:
        for start, end in cut(text):
            parts.append(TextPart(" ".join(text[start:end].split()), offset + start, offset + end, page))
        offset += len(text)
        if offset > MAX_CHARACTERS:
            raise MediaError(name, f"has more than {MAX_CHARACTERS // 1_000_000} million characters")
    if not parts:
        scanned = " Scanned pages need text recognition first." if name.suffix.lower() == ".pdf" else ""
        raise MediaError(name, f"has no text in it.{scanned}")
    return Document(title, tuple(parts), tuple(notes))


# --- characters

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def _decode(data: bytes, name: Path, notes: list[str], declared: str | None = None) -> str:
    """Characters of a text file: by its byte order mark, by what it declares, as UTF-8, or by a guess with a note."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _characters(data[len(mark) :], name, encoding)
    if b"\0" in data:
        raise MediaError(name, "is binary data, not text")
    if declared:
        try:
            return data.decode(declared)
        except (LookupError, UnicodeError):
            notes.append(f"declares the encoding {declared}, which it does not keep to")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        encoding = _guess_encoding(data, name)
        notes.append(f"is not UTF-8; read as {encoding}")
        return _characters(data, name, encoding)


def _characters(data: bytes, name: Path, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError:
        raise MediaError(name, f"is damaged: not valid {encoding}. Save it as UTF-8.") from None


def _guess_encoding(data: bytes, name: Path) -> str:
    foreign = sum(byte >= 0x80 for byte in data[:100_000])
    if foreign < 0.3 * min(
        len(data), 100_000
    ):  # Western European: statistics are no help with so few letters
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:100_000]).best()
    if best is None:
        raise MediaError(name, "is binary data, or text in an unknown encoding. Save it as UTF-8.")
    return best.encoding


def _declared_charset(data: bytes) -> str | None:
    found = re.search(
        rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?([\w.:-]{2,40})", data[:4096], re.I
    )
    return found[1].decode("ascii", "replace") if found else None


# --- Markdown and HTML


def _read_markdown(text: str) -> tuple[str | None, str]:
    from markdown_it import MarkdownIt

    title = None
    if front := re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", text, re.S):
        text = text[front.end() :]
        if named := re.search(r"^title:[ \t]*(.+)$", front[1], re.M):
            title = named[1].strip().strip("\"'") or None
    heading, plain = _read_html(MarkdownIt("commonmark").enable("table").render(text))
    return title or heading, plain


def without_markup(text: str) -> str:
    """The text of a piece of HTML, paragraphs set apart by blank lines; what has no tags is given back as it is."""
    return _read_html(text)[1] if re.search(r"</?[a-z][a-z0-9]*(\s[^<>]*)?/?>", text, re.I) else text


def _read_html(markup: str) -> tuple[str | None, str]:
    """(title or first heading, text); blocks are set apart by blank lines, blanks within them are one space.

    lxml, because the standard library's parser takes quadratic time on hostile markup, minutes for 200 KB.
    """
    from lxml import etree

    seen = _Seen()
    parser = etree.HTMLParser(target=seen, encoding="utf-8", huge_tree=True)
    parser.feed(markup.encode("utf-8", "replace"))
    try:
        parser.close()
    except etree.XMLSyntaxError:  # nothing that looks like markup or text
        return None, ""
    blocks = (" ".join(block.split()) for block in "".join(seen.pieces).split(_BREAK))
    titles = (" ".join("".join(pieces).split()) for pieces in (seen.title, seen.heading))
    return next(filter(None, titles), None), "\n\n".join(filter(None, blocks))


_BREAK = "\0"
_UNSEEN = frozenset(("script", "style", "template", "svg", "head"))
_BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "aside",
            "blockquote",
            "body",
            "br",
            "caption",
            "dd",
            "details",
            "div",
            "dl",
            "dt",
        ),
        *(
            "fieldset",
            "figcaption",
            "figure",
            "footer",
            "form",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "header",
            "hr",
        ),
        *(
            "li",
            "main",
            "nav",
            "ol",
            "option",
            "p",
            "pre",
            "section",
            "summary",
            "table",
            "td",
            "th",
            "tr",
            "ul",
        ),
    )
)


class _Seen:
    """Target of the parser: collects what a reader of the page sees, with ``_BREAK`` around blocks."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.title: list[str] = []
        self.heading: list[str] = []
        self._unseen = 0
        self._titles: list[str] | None = None

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._unseen += tag in _UNSEEN
        if tag == "title" and not self.title:
            self._titles = self.title
        elif tag == "h1" and not self.heading:
            self._titles = self.heading
        if tag in _BLOCKS:
            self.pieces.append(_BREAK)

    def end(self, tag: str) -> None:
        self._unseen -= tag in _UNSEEN
        if tag in ("title", "h1"):
            self._titles = None
        if tag in _BLOCKS:
            self.pieces.append(_BREAK)

    def data(self, data: str) -> None:
        if self._titles is not None:
            self._titles.append(data)
        if not self._unseen:
            self.pieces.append(data.replace(_BREAK, " "))

    def close(self) -> None:
        pass


# --- PDF

_SILENT = logging.NullHandler()


def _read_pdf(data: bytes, name: Path, notes: list[str]) -> tuple[str | None, list[tuple[int | None, str]]]:
    """(title, pages). A page that cannot be read is left out with a note."""
    from pypdf import PdfReader

    # What pypdf remarks on odd files would reach stderr when the program has set up no logging.
    logging.getLogger("pypdf").addHandler(_SILENT)
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise MediaError(name, "is encrypted. Save it without a password.")
        count = len(reader.pages)
    except MediaError:
        raise
    except Exception as error:  # a parser of foreign bytes raises anything
        if "cryptography" in str(error):
            raise MediaError(name, "is encrypted. Save it without a password.") from error
        raise MediaError(name, f"is not a PDF that can be read ({error})") from error
    pages: list[tuple[int | None, str]] = []
    for number in range(count):
        try:
            text = reader.pages[number].extract_text()
        except Exception as error:
            notes.append(f"page {number + 1} could not be read ({error})")
        else:
            pages.append((number + 1, _tidy_page(text)))
    if not pages:
        raise MediaError(name, f"is damaged: {notes[0] if notes else 'it has no pages'}")
    try:
        title = reader.metadata.title if reader.metadata else None
    except Exception:
        title = None
    title = " ".join(title.split()) if title else None
    return None if title in ("", "untitled") else title, pages


def _tidy_page(text: str) -> str:
    """Ligatures and other forms of print as plain letters, words joined that were divided at a line's end."""
    text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
    return re.sub(r"(?<=[^\W\d_])-\n(?=[^\W\d_])", "", text).replace("\0", " ")
