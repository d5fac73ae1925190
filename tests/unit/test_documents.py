"""Texts of every kind come out as parts of whole sentences; what cannot be read says why."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter

from mmsearch.cutting import _TOKEN, PART_TOKENS, cut
from mmsearch.documents import MAX_CHARACTERS, read_text
from mmsearch.errors import MediaError

FIXTURES = Path(__file__).parent.parent / "fixtures" / "documents"
TXT = Path("note.txt")
SENTENCE = "The quick brown fox jumps over the lazy dog near the river. "


def text_of(content: bytes, name: str = "note.txt") -> str:
    return " ".join(part.text for part in read_text(content, Path(name)).parts)


def test_a_short_text_is_one_part_with_its_offsets() -> None:
    (part,) = read_text(b"  \n A dog\n  barks. It is loud. \n", TXT).parts
    assert part.text == "A dog barks. It is loud."
    assert (part.start, part.end, part.page) == (4, 30, None)


def test_a_long_text_is_cut_evenly_at_sentences() -> None:
    parts = read_text((SENTENCE * 40).encode(), TXT).parts
    assert len(parts) >= 4
    for part in parts:
        assert part.text.startswith("The quick")
        assert part.text.endswith("river.")
        assert 40 <= len(part.text.split()) <= 110


def test_a_paragraph_is_kept_together_where_its_size_allows() -> None:
    first, second = SENTENCE * 7, "Another matter begins here and goes on for a while. " * 7
    parts = read_text(f"{first}\n\n{second}".encode(), TXT).parts
    assert [part.text.split()[0] for part in parts] == ["The", "Another"]


def test_a_heading_stays_with_what_follows_it() -> None:
    text = f"{SENTENCE * 6}\n\nThe second chapter\n\n{SENTENCE * 6}"
    assert [part.text[:18] for part in read_text(text.encode(), TXT).parts][1] == "The second chapter"


@pytest.mark.parametrize(
    ("sentence", "end"),
    [
        ("今日は天気がとても良いので犬と公園へ行きました。", "。"),
        ("आज मौसम बहुत अच्छा है और हम बाहर जाते हैं। ", "।"),
        ("هل ذهبت إلى السوق اليوم مع أخيك؟ ", "؟"),
    ],
)
def test_sentences_of_other_scripts_end_where_they_end(sentence: str, end: str) -> None:
    parts = read_text((sentence * 40).encode(), TXT).parts
    assert len(parts) > 2
    assert all(part.text.endswith(end) for part in parts)


@pytest.mark.parametrize(
    "long", ["word " * 500, "clause, " * 500, "x" * 5000, "字" * 600, "1234567890" * 100]
)
def test_a_sentence_without_end_is_cut_all_the_same(long: str) -> None:
    parts = cut(long)
    assert len(parts) > 1
    assert all(len(_TOKEN.findall(long[start:end])) <= PART_TOKENS for start, end in parts)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab ,.!?\n\t-字。é1"), max_size=900))
def test_parts_are_in_order_within_size_and_leave_out_nothing_but_blanks(text: str) -> None:
    parts = cut(text)
    at = 0
    for start, end in parts:
        assert not text[at:start].strip()
        assert start < end
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        assert len(_TOKEN.findall(text[start:end])) <= PART_TOKENS
        at = end
    if any(character.isalnum() for character in text):
        assert not text[at:].strip()
    else:
        assert parts == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_in_any_form_is_read_without_a_note(encoding: str) -> None:
    document = read_text("Große Übung für 5 €.".encode(encoding), TXT)
    assert document.parts[0].text == "Große Übung für 5 €."
    assert document.notes == ()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Das Café an der Straße ist schön und kostet 5 €.", "cp1252"),
        ("Собака бежит по траве, а кошка спит на диване. Сегодня хорошая погода.", "cp1251"),
        ("犬が草の上を走っています。今日は良い天気です。", "shift_jis"),
        ("一只狗在草地上奔跑。今天天气很好。", "gbk"),
    ],
)
def test_an_older_encoding_is_guessed_and_the_guess_is_noted(text: str, encoding: str) -> None:
    document = read_text(text.encode(encoding), TXT)
    assert document.parts[0].text == text
    assert "is not UTF-8; read as" in document.notes[0]


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.txt", "zero bytes"),
        (b" \n\t ", "a.txt", "no text"),
        (b"...---...", "a.txt", "no text"),
        (b"\x7fELF\0\0\0", "a.txt", "binary"),
        (b"\xff\xfea", "a.txt", "not valid utf-16"),
        (b"abc \x81\x8d def", "a.txt", "not valid cp1252"),
        (b"<html><script>var x = 1</script></html>", "a.html", "no text"),
        (b"", "a.pdf", "zero bytes"),
        (b"%PDF-1.7 and no more", "a.pdf", "is not a PDF"),
        (b"plain words", "a.pdf", "is not a PDF"),
    ],
)
def test_what_cannot_be_read_says_why_and_names_the_file(content: bytes, name: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason) as caught:
        read_text(content, Path(name))
    assert caught.value.path == name


def test_a_text_beyond_all_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.documents.MAX_CHARACTERS", 1000)
    with pytest.raises(MediaError, match="more than"):
        read_text(b"word " * 201, TXT)
    assert MAX_CHARACTERS == 20_000_000


def test_markdown_loses_its_marks_and_keeps_its_title() -> None:
    markdown = (
        "# A **bold** title\n\nSee [the *link*](http://example.org/secret) and `code`.\n\n"
        "* one\n* two\n\n| a | b |\n|---|---|\n| c | d |\n"
    )
    document = read_text(markdown.encode(), Path("x.md"))
    assert document.title == "A bold title"
    assert document.parts[0].text == "A bold title See the link and code. one two a b c d"


def test_markdown_front_matter_gives_the_title_and_is_no_text() -> None:
    document = read_text(b"---\r\ntitle: 'The sea'\r\ndraft: yes\r\n---\r\nWaves and wind.\r\n", Path("x.md"))
    assert (document.title, document.parts[0].text) == ("The sea", "Waves and wind.")


def test_html_gives_what_a_reader_sees() -> None:
    html = b"""<html><head><title>Fish &amp; chips</title><style>p {}</style></head><body><script>alert(1)</script>
      <h1>Dinner</h1><p>Two <b>big</b>
      portions<br>for 5&nbsp;&euro;.<p>Open<svg><title>icon</title><text>x</text></svg> late.<!-- hidden -->"""
    document = read_text(html, Path("x.html"))
    assert document.title == "Fish & chips"
    assert document.parts[0].text == "Dinner Two big portions for 5 €. Open late."


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<meta charset="windows-1251"><p>Собака'.encode("cp1251"), "Собака"),
        ('<meta charset="nonsense"><p>é'.encode(), "é"),
        ('<meta charset="utf-8"><p>é'.encode("cp1252"), "é"),
    ],
)
def test_the_declared_encoding_of_html_counts_if_it_is_kept_to(html: bytes, text: str) -> None:
    assert text_of(html, "x.html") == text


@pytest.mark.parametrize("opening", [b"<div>" * 20_000, b"<!--" * 50_000 + b"-->", b"<p " * 50_000 + b">"])
def test_hostile_markup_hides_nothing_and_does_not_take_forever(opening: bytes) -> None:
    assert text_of(opening + b"deep", "x.html") == "deep"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["a.txt", "a.md", "a.html", "a.pdf"]))
def test_any_bytes_give_parts_or_a_media_error(content: bytes, name: str) -> None:
    try:
        document = read_text(content, Path(name))
    except MediaError:
        return
    assert document.parts
    for part in document.parts:
        assert part.text.strip()
        part.text.encode()


def test_html_of_another_program_is_read() -> None:
    document = read_text((FIXTURES / "groff.html").read_bytes(), Path("groff.html"))
    assert document.title == "The heron at the pond"
    assert "A grey heron stands at the edge of the pond every morning." in document.parts[0].text
    assert "<" not in document.parts[0].text


def test_pdf_of_another_program_is_read_page_by_page() -> None:
    first, second = read_text((FIXTURES / "groff.pdf").read_bytes(), Path("groff.pdf")).parts
    assert (first.page, second.page) == (1, 2)
    assert "A grey heron stands at the edge of the pond every morning." in first.text
    assert "In winter the pond freezes" in second.text
    assert first.end <= second.start


def test_a_pdf_that_only_forbids_changes_is_read() -> None:
    content = (FIXTURES / "owner-locked.pdf").read_bytes()
    assert text_of(content, "x.pdf") == "Anyone may read this text, but not change it."


@pytest.mark.parametrize(
    ("name", "reason"), [("locked.pdf", "is encrypted"), ("scanned.pdf", "no text in it.*Scanned")]
)
def test_a_pdf_without_readable_text_says_why(name: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        read_text((FIXTURES / name).read_bytes(), Path(name))


def test_a_damaged_pdf_is_a_media_error_or_its_readable_pages_with_a_note(
    capfd: pytest.CaptureFixture[str],
) -> None:
    content = (FIXTURES / "groff.pdf").read_bytes()
    for end in range(0, len(content), 1500):
        try:
            read_text(content[: end + 1], Path("x.pdf"))
        except MediaError:
            continue
    assert capfd.readouterr() == ("", "")


def test_a_page_tree_that_contains_itself_is_a_media_error() -> None:
    writer = PdfWriter()
    writer.add_blank_page(10, 10)
    pages = writer.root_object["/Pages"].get_object()
    pages["/Kids"].append(writer.root_object.raw_get("/Pages"))  # type: ignore[index]
    file = io.BytesIO()
    writer.write(file)
    with pytest.raises(MediaError):
        read_text(file.getvalue(), Path("loop.pdf"))
