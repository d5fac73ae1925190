"""Indexing folders of real files into a real catalog, with the toy encoder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import PIL.Image
import pytest

import indexer.pipeline
import indexer.prepare
from indexer import Progress, Report, index
from indexer.plan import File
from indexer.scan import scan
from mmsearch.engine import Engine
from mmsearch.errors import CatalogBusy, MediaError, PruneRefused
from mmsearch.media import read_file
from mmsearch.types import Image, Item, Modality, Vectors
from tests.toy import COLOURS, ToyEncoder

NOBODY = 65534
P = ParamSpec("P")
T = TypeVar("T")


def picture(path: Path, colour: str | tuple[int, int, int] = "red", size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (size, size), COLOURS[colour] if isinstance(colour, str) else colour).save(path)
    return path


def document(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def toy() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def engine(home: Path, toy: ToyEncoder, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A collection of its own for each test; making a catalog takes longer than most of them."""
    with Engine.open(home, collection=request.node.name, model=toy) as opened:
        toy.encoded_images = toy.encoded_texts = toy.encoded_sounds = 0  # not what a new collection asks for
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def counts(report: Report) -> dict[str, int]:
    names = ("added", "updated", "renamed", "removed", "unchanged", "copies")
    return {name: getattr(report, name) for name in names if getattr(report, name)} | (
        {"skipped": len(report.skipped)} if report.skipped else {}
    )


def item(engine: Engine, path: Path) -> Item:
    found = engine.find(str(path))
    assert found is not None, path
    return found


def part_ids(engine: Engine, path: Path) -> list[int]:
    return [part.id for part in item(engine, path).parts]


def best(engine: Engine, words: str) -> str:
    return engine.search(words)[0].item.key


def test_pictures_and_texts_become_items(engine: Engine, photos: Path) -> None:
    red = picture(photos / "a red one.png", "red", size=24)
    document(photos / "b.txt", "All is green. " * 40)
    document(photos / "c.html", "<title>Of the sea</title><p>A blue sea.</p>")
    report = index(engine, [photos])
    assert counts(report) == {"added": 3}
    assert best(engine, "red") == str(red)
    assert best(engine, "green") == str(photos / "b.txt")
    found = item(engine, red)
    assert (found.title, found.modality, found.is_file) == ("a red one", Modality.IMAGE, True)
    assert found.attributes == {"width": 24, "height": 24, "format": "PNG"}
    assert (found.size, found.mtime_ns) == (red.stat().st_size, red.stat().st_mtime_ns)
    text = item(engine, photos / "b.txt")
    assert (text.title, text.attributes) == ("b", {"format": "TEXT"})
    assert len(text.parts) > 1
    for part in text.parts:
        assert part.text
        assert part.start is not None
        assert part.end is not None
        assert ("All is green. " * 40)[int(part.start) : int(part.end)].split() == part.text.split()
    assert item(engine, photos / "c.html").title == "Of the sea"
    assert engine.check() == []


def test_an_unchanged_file_is_not_opened(
    engine: Engine, photos: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(photos / "a.png")
    document(photos / "b.txt", "A green hill.")
    index(engine, [photos])
    encoded = (toy.encoded_images, toy.encoded_texts)
    revision = engine.status().revision

    def refuse(path: Path) -> bytes:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("indexer.prepare.read_file", refuse)
    assert counts(index(engine, [photos])) == {"unchanged": 2}
    assert (toy.encoded_images, toy.encoded_texts) == encoded == (1, 1)
    assert engine.status().revision == revision  # nothing was written either


def test_a_changed_file_is_encoded_again_and_keeps_its_id(engine: Engine, photos: Path) -> None:
    path = picture(photos / "a.png", "red")
    index(engine, [photos])
    before = item(engine, path)
    picture(path, "blue", size=17)
    os.utime(path, ns=(0, before.mtime_ns or 0))  # the size alone tells
    assert counts(index(engine, [photos])) == {"updated": 1}
    after = item(engine, path)
    assert after.id == before.id
    assert {part.id for part in after.parts}.isdisjoint(part.id for part in before.parts)
    assert (after.attributes["width"], after.content_hash) != (
        before.attributes["width"],
        before.content_hash,
    )
    assert engine.search("blue")[0].score == pytest.approx(1, abs=1e-3)
    assert engine.check() == []


def test_a_touched_file_is_not_encoded_again(engine: Engine, photos: Path, toy: ToyEncoder) -> None:
    path = picture(photos / "a.png")
    index(engine, [photos])
    parts = part_ids(engine, path)
    os.utime(path, ns=(1, 1_234_567_891_000_000_123))
    assert counts(index(engine, [photos])) == {"unchanged": 1}
    assert item(engine, path).mtime_ns == 1_234_567_891_000_000_123
    assert (part_ids(engine, path), toy.encoded_images) == (parts, 1)


def test_a_renamed_file_keeps_id_and_vector_and_follows_in_title(
    engine: Engine, photos: Path, toy: ToyEncoder
) -> None:
    picture(photos / "a.png")
    document(photos / "b.html", "<title>Sea</title><p>The blue sea.</p>")
    index(engine, [photos])
    before = [item(engine, photos / name) for name in ("a.png", "b.html")]
    (photos / "a.png").rename(photos / "c.png")
    (photos / "deep").mkdir()
    (photos / "b.html").rename(photos / "deep/d.html")
    assert counts(index(engine, [photos])) == {"renamed": 2}
    after = [item(engine, photos / name) for name in ("c.png", "deep/d.html")]
    assert [found.id for found in after] == [found.id for found in before]
    assert [found.parts for found in after] == [found.parts for found in before]
    assert [found.title for found in after] == ["c", "Sea"]
    assert engine.find(str(photos / "a.png")) is None
    assert (toy.encoded_images, toy.encoded_texts) == (1, 1)
    assert engine.check() == []


def test_a_whole_folder_that_moved_is_renamed_and_nothing_is_lost(
    engine: Engine, photos: Path, toy: ToyEncoder
) -> None:
    for n in range(10):
        picture(photos / f"2024/{n}.png", (n, 0, 0))
    index(engine, [photos])
    ids = {name: item(engine, photos / f"2024/{name}").id for name in ("0.png", "9.png")}
    (photos / "2024").rename(photos / "2024 Rome")
    assert counts(index(engine, [photos])) == {"renamed": 10}
    assert {name: item(engine, photos / f"2024 Rome/{name}").id for name in ids} == ids
    assert toy.encoded_images == 10


def test_a_file_that_moved_between_the_given_roots_keeps_its_id(engine: Engine, tmp_path: Path) -> None:
    path = picture(tmp_path / "a/1.png")
    picture(tmp_path / "b/2.png", "blue")
    index(engine, [tmp_path / "a", tmp_path / "b"])
    before = item(engine, path)
    path.rename(tmp_path / "b/3.png")  # now the first root is empty, but its only file is not gone
    assert counts(index(engine, [tmp_path / "a", tmp_path / "b"])) == {"renamed": 1, "unchanged": 1}
    assert item(engine, tmp_path / "b/3.png").id == before.id


def test_of_several_lost_copies_the_one_of_the_same_name_is_taken(engine: Engine, photos: Path) -> None:
    for name in ("a/1.png", "a/2.png", "a/3.png"):
        picture(photos / name)
    index(engine, [photos])
    ids = [item(engine, photos / f"a/{n}.png").id for n in (1, 2, 3)]
    (photos / "a").rename(photos / "b")
    (photos / "b/2.png").unlink()
    assert counts(index(engine, [photos])) == {"renamed": 2, "removed": 1}
    assert [item(engine, photos / f"b/{n}.png").id for n in (1, 3)] == [ids[0], ids[2]]


def test_a_file_that_was_moved_and_copied_is_one_renamed_and_one_copy(
    engine: Engine, photos: Path, toy: ToyEncoder
) -> None:
    before = picture(photos / "a.png")
    index(engine, [photos])
    item_id = item(engine, before).id
    before.rename(photos / "b.png")
    shutil.copy(photos / "b.png", photos / "c.png")
    assert counts(index(engine, [photos])) == {"renamed": 1, "added": 1, "copies": 1}
    assert item_id in {item(engine, photos / name).id for name in ("b.png", "c.png")}
    assert toy.encoded_images == 1
    assert engine.check() == []


def test_files_that_swap_names_swap_contents(engine: Engine, photos: Path) -> None:
    red, blue = picture(photos / "a.png", "red"), picture(photos / "b.png", "blue", size=20)
    index(engine, [photos])
    red.rename(photos / "c.png")
    blue.rename(red)
    (photos / "c.png").rename(blue)
    assert counts(index(engine, [photos])) == {"updated": 2, "copies": 2}
    assert (best(engine, "red"), best(engine, "blue")) == (str(photos / "b.png"), str(photos / "a.png"))
    assert engine.check() == []


def test_a_file_moved_over_another_one_replaces_it(engine: Engine, photos: Path, toy: ToyEncoder) -> None:
    picture(photos / "a.png", "red")
    picture(photos / "b.png", "blue", size=20)
    index(engine, [photos])
    (photos / "a.png").rename(photos / "b.png")
    assert counts(index(engine, [photos])) == {"updated": 1, "copies": 1, "removed": 1}
    assert list(engine.files()) == [str(photos / "b.png")]
    assert engine.search("red")[0].score == pytest.approx(1, abs=1e-3)
    assert toy.encoded_images == 2


@pytest.mark.parametrize("apart", [0, 30])
def test_byte_identical_files_are_encoded_once(
    engine: Engine, photos: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    monkeypatch.setattr(indexer.pipeline, "COMMIT_ITEMS", 7)
    picture(photos / "a.png", "red")
    document(photos / "a.md", "# Leaves\n\nThey are green.")
    for n in range(apart):
        picture(photos / f"b{n}.png", (n, n, n))
    shutil.copy(photos / "a.png", photos / "c.png")
    shutil.copy(photos / "a.png", photos / "d.jpg")  # a name may lie about the format
    shutil.copy(photos / "a.md", photos / "e.md")
    assert counts(index(engine, [photos])) == {"added": 5 + apart, "copies": 3}
    assert (toy.encoded_images, toy.encoded_texts) == (1 + apart, 1)
    shutil.copy(photos / "a.png", photos / "f.png")
    shutil.copy(photos / "e.md", photos / "g.md")
    assert counts(index(engine, [photos])) == {"added": 2, "copies": 2, "unchanged": 5 + apart}
    assert (toy.encoded_images, toy.encoded_texts) == (1 + apart, 1)
    assert item(engine, photos / "f.png").attributes == item(engine, photos / "a.png").attributes
    assert [item(engine, photos / name).title for name in ("f.png", "e.md", "g.md")] == [
        "f",
        "Leaves",
        "Leaves",
    ]
    (hit, *_) = engine.search("red")
    assert {hit.item.key, *hit.copies} == {
        str(photos / name) for name in ("a.png", "c.png", "d.jpg", "f.png")
    }
    assert engine.check() == []


def test_the_same_bytes_read_as_text_and_as_html_are_two_texts(engine: Engine, photos: Path) -> None:
    for name in ("a.txt", "a.html", "b.htm"):
        document(photos / name, "<p>green</p>")
    assert counts(index(engine, [photos])) == {"added": 3, "copies": 1}
    assert [item(engine, photos / name).parts[0].text for name in ("a.txt", "a.html")] == [
        "<p>green</p>",
        "green",
    ]


def test_vanished_files_are_removed(engine: Engine, photos: Path) -> None:
    for n in range(4):
        picture(photos / f"{n}.png", (n, 0, 0))
    index(engine, [photos])
    (photos / "0.png").unlink()
    (photos / "1.png").unlink()  # half, not more
    assert counts(index(engine, [photos])) == {"removed": 2, "unchanged": 2}
    assert list(engine.files()) == [str(photos / "2.png"), str(photos / "3.png")]
    assert engine.check() == []


@pytest.mark.parametrize("left", ["missing", "empty", "one of three", "other files"])
def test_when_most_of_a_root_is_gone_nothing_is_done_without_prune(
    engine: Engine, tmp_path: Path, photos: Path, left: str
) -> None:
    other = picture(tmp_path / "other/a.png", "white")
    for n in range(3):
        picture(photos / f"{n}.png", (n, 0, 0), size=16 + n)
    index(engine, [photos, tmp_path / "other"])
    if left == "missing":
        shutil.rmtree(photos)
    else:
        for n in range(3 if left != "one of three" else 2):
            (photos / f"{n}.png").unlink()
    if left == "other files":
        picture(photos / "new.png", "green", size=100)
    picture(tmp_path / "other/b.png", "blue", size=200)
    with pytest.raises(PruneRefused, match=r"photos: [23] of the 3 files .*--prune"):
        index(engine, [photos, tmp_path / "other"])
    assert sorted(engine.files()) == sorted(map(str, [other, *(photos / f"{n}.png" for n in range(3))]))
    report = index(engine, [photos, tmp_path / "other"], prune=True)
    assert report.removed == (2 if left == "one of three" else 3)
    assert engine.find(str(tmp_path / "other/b.png")) is not None
    assert engine.check() == []


def test_new_files_that_only_have_the_sizes_of_the_lost_ones_do_not_pass_for_them(
    engine: Engine, photos: Path
) -> None:
    for n in range(3):
        document(photos / f"{n}.txt", f"number {n}")
    index(engine, [photos])
    for n in range(3):
        (photos / f"{n}.txt").unlink()
        document(photos / f"new {n}.txt", f"letter {n}")
    with pytest.raises(PruneRefused):
        index(engine, [photos])
    assert len(engine.files()) == 6  # the new ones are in, the old ones are not out
    assert counts(index(engine, [photos], prune=True)) == {"removed": 3, "unchanged": 3}


def test_a_missing_file_given_by_name_is_refused_until_prune(engine: Engine, photos: Path) -> None:
    path = picture(photos / "a.png")
    index(engine, [path])
    path.unlink()
    with pytest.raises(PruneRefused):
        index(engine, [path])
    assert counts(index(engine, [path], prune=True)) == {"removed": 1}
    with pytest.raises(MediaError, match="no such file or folder"):
        index(engine, [path])


def test_a_path_that_never_was_is_an_error_before_anything_is_done(engine: Engine, photos: Path) -> None:
    picture(photos / "a.png")
    with pytest.raises(MediaError, match="nowhere: no such file or folder"):
        index(engine, [photos, photos / "nowhere"])
    assert engine.files() == {}
    assert engine.roots() == {}


def test_a_root_that_is_gone_is_forgotten_with_its_files(
    engine: Engine, tmp_path: Path, photos: Path
) -> None:
    picture(photos / "a.png")
    (tmp_path / "empty").mkdir()
    index(engine, [photos, tmp_path / "empty"])
    assert engine.roots().keys() == {str(photos), str(tmp_path / "empty")}
    (tmp_path / "empty").rmdir()
    assert counts(index(engine, list(engine.roots()))) == {"unchanged": 1}
    assert engine.roots().keys() == {str(photos)}
    shutil.rmtree(photos)
    with pytest.raises(PruneRefused):
        index(engine, [photos])
    assert engine.roots().keys() == {str(photos)}
    index(engine, [photos], prune=True)
    assert engine.roots() == {}


def test_files_newly_excluded_are_forgotten_and_those_outside_the_roots_are_not(
    engine: Engine, tmp_path: Path, photos: Path
) -> None:
    for name in ("photos/a.png", "photos/b.png", "photos/raw/c.png", "photos2/d.png"):
        picture(tmp_path / name, "red" if name < "photos/b" else "blue")
    index(engine, [photos, tmp_path / "photos2"])
    assert counts(index(engine, [photos], exclude=["raw/"])) == {"removed": 1, "unchanged": 2}
    assert engine.find(str(tmp_path / "photos2/d.png")) is not None
    assert engine.roots() == {str(photos): ["raw/"], str(tmp_path / "photos2"): []}


def test_overlapping_roots_count_each_file_once(engine: Engine, photos: Path) -> None:
    picture(photos / "a.png")
    path = picture(photos / "b/c.png", "blue")
    given: list[str | Path] = [photos, photos / "b", path, f"{photos}/", photos / "b/../b"]
    assert counts(index(engine, given)) == {"added": 2}
    assert counts(index(engine, given)) == {"unchanged": 2}
    path.unlink()
    with pytest.raises(PruneRefused):  # all of the second root
        index(engine, given)
    assert counts(index(engine, given, prune=True)) == {"removed": 1, "unchanged": 1}


def test_a_hidden_file_given_by_name_survives_a_run_over_its_folder(engine: Engine, photos: Path) -> None:
    picture(photos / "a.png")
    hidden = picture(photos / ".cache/b.png", "blue")
    index(engine, [photos, hidden])
    assert counts(index(engine, [photos])) == {"unchanged": 1}
    assert engine.find(str(hidden)) is not None


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be indexed, with a word of the reason."""
    good = picture(folder / "good.jpg", "red", size=64).read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "noise.png").write_bytes(os.urandom(1000))
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "words.jpg").write_text("I am no picture")
    (folder / "blank.txt").write_text(" \n")
    (folder / "binary.txt").write_bytes(b"a\0b" * 100)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    return {"empty.jpg": "zero bytes", "noise.png": "not a picture", "cut.jpg": "", "words.jpg": "not a picture",
            "blank.txt": "no text", "binary.txt": "binary", "broken.pdf": "", "link.jpg": "No such file"}  # fmt: skip


def test_bad_files_are_reported_with_a_reason_and_do_not_stop_the_run(engine: Engine, photos: Path) -> None:
    expected = bad_files(photos)
    picture(photos / "zebra.png", "white")
    for _ in range(2):  # the second run reports them again
        report = index(engine, [photos])
        reasons = {Path(line.path).name: line.reason for line in report.skipped}
        assert reasons.keys() == expected.keys()
        for name, word in expected.items():
            assert word in reasons[name], (name, reasons[name])
            assert str(photos) not in reasons[name]
    assert sorted(engine.files()) == [str(photos / "good.jpg"), str(photos / "zebra.png")]


def test_a_file_that_turned_bad_keeps_its_item_and_is_reported(engine: Engine, photos: Path) -> None:
    path = picture(photos / "a.png")
    index(engine, [photos])
    before = item(engine, path)
    path.write_bytes(b"half a pict")
    for _ in range(2):
        assert counts(index(engine, [photos])) == {"skipped": 1}
        assert item(engine, path) == before
    picture(path, "blue")
    assert counts(index(engine, [photos])) == {"updated": 1}


def test_odd_text_is_indexed_with_a_note(engine: Engine, photos: Path) -> None:
    (photos / "a.txt").write_bytes("Ein grünes Männchen.".encode("cp1252"))
    report = index(engine, [photos])
    assert counts(report) == {"added": 1}
    (note,) = report.notes
    assert (note.path, "cp1252" in note.reason) == (str(photos / "a.txt"), True)


def test_odd_names_are_indexed(engine: Engine, photos: Path) -> None:
    names = [
        "new\nline.png",
        "né.png",
        "ne\u0301.png",
        "x" * 251 + ".png",
        "猫🐈.png",
        "'; DROP TABLE items; --.png",
        "%_.png",
    ]
    for n, name in enumerate(names):
        picture(photos / name, (n, 0, 0))
    with open(os.fsencode(photos) + b"/caf\xe9.png", "wb") as file:
        file.write((photos / names[0]).read_bytes())
    report = index(engine, [photos])
    assert counts(report) == {"added": len(names), "skipped": 1}
    assert report.skipped[0].path == f"{photos}/caf\\xe9.png"
    assert "UTF-8" in report.skipped[0].reason
    assert set(engine.files()) == {str(photos / name) for name in names}
    assert counts(index(engine, [photos])) == {"unchanged": len(names), "skipped": 1}


def test_files_that_may_not_be_read_are_reported_and_not_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_an_ordinary_user(function: Callable[P, T]) -> Callable[P, T]:
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            with ordinary_user():
                return function(*args, **kwargs)

        return wrapped

    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        folder.chmod(0o755)
        for name in ("a.png", "no/b.png", "c.png", "d.png"):
            picture(folder / name, (len(name), ord(name[0]), 0))
        index(engine, [folder])
        (folder / "no").chmod(0)
        (folder / "c.png").chmod(0)
        os.utime(folder / "c.png", ns=(0, 0))
        monkeypatch.setattr("indexer.pipeline.scan", by_an_ordinary_user(scan))
        monkeypatch.setattr("indexer.prepare.read_file", by_an_ordinary_user(read_file))
        report = index(engine, [folder])
        assert counts(report) == {"unchanged": 2, "skipped": 2}
        assert {Path(line.path).name for line in report.skipped} == {"no", "c.png"}
        assert len(engine.files()) == 4
    finally:
        (folder / "no").chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything; run as somebody who may not."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_file_that_vanishes_before_it_is_read_is_reported(
    engine: Engine, tmp_path: Path, photos: Path
) -> None:
    picture(photos / "a.png")
    gone = picture(photos / "b.png", "blue")
    picture(tmp_path / "later/c.png", "green")

    def vanish(progress: Progress) -> None:
        if progress.path == str(tmp_path / "later"):
            gone.unlink(missing_ok=True)

    report = index(engine, [photos, tmp_path / "later"], progress=vanish)
    assert counts(report) == {"added": 2, "skipped": 1}
    assert (report.skipped[0].path, report.skipped[0].reason) == (str(gone), "no such file")


@pytest.mark.parametrize("settles", [True, False])
def test_a_file_that_changes_while_it_is_read_is_read_again_or_left_for_later(
    engine: Engine, photos: Path, monkeypatch: pytest.MonkeyPatch, settles: bool
) -> None:
    path = document(photos / "a.txt", "red")
    words = iter(["green", "green and blue", "green and blue and white"])

    def read_and_write(name: Path) -> bytes:
        data = read_file(name)
        if not settles or path.read_text() == "red":
            path.write_text(next(words))
        return data

    monkeypatch.setattr("indexer.prepare.read_file", read_and_write)
    report = index(engine, [photos])
    if settles:
        assert counts(report) == {"added": 1}
        assert item(engine, path).parts[0].text == "green"
        assert item(engine, path).mtime_ns == path.stat().st_mtime_ns
        monkeypatch.undo()
        assert counts(index(engine, [photos])) == {"unchanged": 1}
    else:
        assert counts(report) == {"skipped": 1}
        assert "changes while it is read" in report.skipped[0].reason


def test_what_is_known_when_it_is_read_and_not_when_it_is_taken_is_decoded_after_all(
    engine: Engine, photos: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.pipeline, "COMMIT_ITEMS", 1)
    toy.batch_size = 1
    picture(photos / "a.png", "red")
    index(engine, [photos])
    shutil.copy(photos / "a.png", photos / "b.png")
    picture(photos / "a.png", "blue", size=20)
    # both are read before the first is taken; by then the only item with the content of the second has changed
    assert counts(index(engine, [photos])) == {"updated": 1, "added": 1}
    assert (best(engine, "red"), best(engine, "blue")) == (str(photos / "b.png"), str(photos / "a.png"))
    assert engine.check() == []


def test_progress_covers_every_file_to_be_read(engine: Engine, photos: Path) -> None:
    bad_files(photos)
    index(engine, [photos])
    picture(photos / "a.png", "blue")
    heard: list[Progress] = []
    index(engine, [photos], progress=heard.append)
    steps = [progress for progress in heard if progress.stage == "index"]
    assert [progress.done for progress in steps] == list(range(1, 9))
    assert {progress.total for progress in steps} == {8}
    assert str(photos / "a.png") in {progress.path for progress in steps}


def test_the_report_is_plain_values_and_times_every_stage(engine: Engine, photos: Path) -> None:
    picture(photos / "a.png")
    (photos / "b.png").write_bytes(b"")
    plain: dict[str, Any] = index(engine, [photos]).as_dict()
    assert plain["skipped"] == [{"path": str(photos / "b.png"), "reason": "is empty (zero bytes)"}]
    assert set(plain["seconds"]) == {"scan", "read", "decode", "encode", "commit", "save"}
    assert plain["total"] >= max(plain["seconds"][stage] for stage in ("scan", "encode", "commit", "save"))


class FailingEncoder(ToyEncoder):
    """Fails with something that nobody foresaw, at the fifth picture."""

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        if self.encoded_images >= 4:
            raise RuntimeError("out of order")
        return super().encode_images(images)


def test_an_unforeseen_error_stops_the_run_and_what_was_committed_stays(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.pipeline, "COMMIT_ITEMS", 4)
    for n in range(10):
        picture(photos / f"{n}.png", (n, 0, 0))
    with Engine.open(tmp_path / "home", model=FailingEncoder()) as engine:
        with pytest.raises(RuntimeError, match="out of order"):
            index(engine, [photos])
        assert len(engine.files()) == 4
        assert engine.check() == []
    toy = ToyEncoder()
    with Engine.open(tmp_path / "home", model=toy) as engine:
        assert counts(index(engine, [photos])) == {"added": 6, "unchanged": 4}
        assert toy.encoded_images == 6


def test_an_interrupted_run_keeps_what_was_encoded(engine: Engine, photos: Path, toy: ToyEncoder) -> None:
    for n in range(20):
        picture(photos / f"{n:02}.png", (n, 0, 0))

    def interrupt(progress: Progress) -> None:
        if progress.stage == "index" and progress.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(engine, [photos], progress=interrupt)
    assert len(engine.files()) == toy.encoded_images == 8  # two full batches of four
    assert engine.check() == []
    assert counts(index(engine, [photos])) == {"added": 12, "unchanged": 8}
    assert toy.encoded_images == 20


def test_two_runs_at_once_do_not_mix(engine: Engine, photos: Path) -> None:
    picture(photos / "a.png")

    def second(progress: Progress) -> None:
        with (
            Engine.open(engine.home, collection=engine.collection, model=ToyEncoder()) as other,
            pytest.raises(CatalogBusy, match="indexing"),
            other.writing(wait=0),
        ):
            pass

    assert counts(index(engine, [photos], progress=second)) == {"added": 1}


def test_no_more_files_are_decoded_ahead_than_the_window_holds(
    engine: Engine, photos: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(60):
        picture(photos / f"{n:02}.png", (n, 0, 0))
    begun: list[File] = []
    ahead: list[int] = []
    call = indexer.prepare.Preparer.__call__

    def counted(self: indexer.prepare.Preparer, file: File, *, decode: bool = False) -> Any:
        begun.append(file)
        return call(self, file, decode=decode)

    monkeypatch.setattr(indexer.prepare.Preparer, "__call__", counted)
    index(engine, [photos], workers=3, progress=lambda progress: ahead.append(len(begun) - progress.done))
    assert len(begun) == 60
    assert max(ahead) <= 2 * (3 + toy.batch_size)
