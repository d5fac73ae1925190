"""Recordings from the file to the hit: indexed in parts, found by words, pictures and sounds, ranked fairly."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from indexer import Report, index
from indexer.transfer import export_collection, import_collection
from mmsearch import Engine, Hit, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import ItemNotFound, MediaError, MissingExtra, ModelError, QueryError
from mmsearch.types import MEDIA
from tests.colour_model import save_colour_model
from tests.oracle import directions, unit
from tests.sounds import save_sound, save_track
from tests.toy import COLOURS, ToyEncoder, normalise, tone

AUDIO, IMAGE, TEXT = Modality.AUDIO, Modality.IMAGE, Modality.TEXT


@pytest.fixture
def toy() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def engine(tmp_path: Path, toy: ToyEncoder) -> Iterator[Engine]:
    with Engine.open(tmp_path / "home", model=toy) as opened:
        toy.encoded_sounds = 0  # not what a new collection asks for
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A red, a green and a blue sound, the last of three parts; pictures and a text of those colours."""
    folder = tmp_path / "media"
    folder.mkdir()
    save_sound(folder / "red.wav", tone("red"), tags={"title": "Ruby", "artist": "A Fire"})
    save_sound(folder / "green.flac", tone("green", rate=44_100), rate=44_100)
    save_sound(
        folder / "blue.mp3",
        np.concatenate([tone("green"), tone(seconds=3), tone("blue", seconds=3)]),
    )
    for colour in ("red", "green", "blue"):
        PIL.Image.new("RGB", (32, 24), COLOURS[colour]).save(folder / f"{colour}.png")
    (folder / "notes.txt").write_text("red and only red")
    return folder


def counts(report: Report) -> dict[str, int]:
    names = ("added", "updated", "renamed", "removed", "unchanged", "copies")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def names(hits: list[Hit]) -> list[str]:
    return [Path(hit.item.key).name for hit in hits]


def ask(engine: Engine, *, modality: Modality | None = None, k: int = 10, **term: object) -> list[Hit]:
    return engine.search(Query(terms=(Term(**term),), modality=modality, k=k))  # type: ignore[arg-type]


def test_a_recording_is_an_item_with_a_part_for_each_stretch_of_sound(engine: Engine, folder: Path) -> None:
    report = index(engine, [folder])
    assert counts(report) == {"added": 7}
    assert report.skipped == report.notes == []
    item = engine.find(str(folder / "blue.mp3"))
    assert item is not None
    assert item.modality is AUDIO
    assert [(part.modality, round(part.start or 0), round(part.end or 0)) for part in item.parts] == [
        (AUDIO, 0, 1),
        (AUDIO, 4, 6),
        (AUDIO, 5, 7),
    ]
    vectors = engine.vectors(item)
    green, blue = normalise(np.array([[0, 1, 0, 0.25], [0, 0, 1, 0.25]], np.float32))
    np.testing.assert_allclose(vectors[0], green, atol=0.02)
    np.testing.assert_allclose(vectors[2], blue, atol=0.02)
    assert item.attributes["duration"] == pytest.approx(7, abs=0.1)
    assert engine.check() == []


def test_what_a_recording_says_of_itself_can_be_filtered(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    red = engine.find(str(folder / "red.wav"))
    assert red is not None
    assert red.title == "Ruby"
    assert dict(red.attributes) == {
        "duration": 1,
        "sample_rate": 16_000,
        "channels": 1,
        "format": "WAV",
        "artist": "A Fire",
    }
    assert engine.select('artist = "A Fire" and duration <= 1') == [red.id]


def test_words_pictures_and_sounds_find_sounds_and_the_other_way_round(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    assert names(ask(engine, text="green", modality=AUDIO))[0] in {"green.flac", "blue.mp3"}
    assert names(ask(engine, image=folder / "red.png", modality=AUDIO))[0] == "red.wav"
    assert names(ask(engine, audio=folder / "red.wav", modality=IMAGE))[0] == "red.png"
    assert names(ask(engine, audio=folder / "red.wav", modality=TEXT)) == ["notes.txt"]
    assert names(ask(engine, audio=folder / "green.flac", modality=AUDIO))[:2] in (
        ["green.flac", "blue.mp3"],
        ["blue.mp3", "green.flac"],
    )


def test_a_hit_names_the_stretch_that_matched(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    (hit,) = [hit for hit in ask(engine, text="blue", modality=AUDIO) if hit.item.key.endswith("mp3")]
    assert hit.part.start is not None
    assert hit.part.start > 3.9
    (hit,) = [hit for hit in ask(engine, text="green", modality=AUDIO) if hit.item.key.endswith("mp3")]
    assert hit.part.start == pytest.approx(0, abs=0.1)


def test_a_sound_term_is_bytes_a_path_or_samples(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    path = folder / "red.wav"
    found = [ask(engine, audio=audio) for audio in (path, str(path), path.read_bytes(), tone("red"))]
    for hits in found:
        assert names(hits) == names(found[0])
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in found[0]], atol=1e-3)


def test_a_long_recording_as_a_query_is_the_mean_of_its_parts(engine: Engine, folder: Path) -> None:
    """Two seconds of blue in two parts, and one of green: the silence between them has no say."""
    index(engine, [folder])
    item = engine.find(str(folder / "blue.mp3"))
    assert item is not None
    expected = unit(engine.vectors(item).mean(axis=0))
    for hit in ask(engine, audio=folder / "blue.mp3", modality=IMAGE):
        ((_, vector),) = zip(
            hit.item.parts or [hit.part], engine.catalog.vectors_of([hit.part.id]), strict=True
        )
        assert hit.score == pytest.approx(float(vector @ expected), abs=5e-3)


def test_a_sound_is_a_term_among_others(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    query = Query(
        terms=(Term(audio=folder / "red.wav"), Term(text="blue"), Term(image=folder / "red.png", weight=-1)),
        modality=IMAGE,
    )
    assert names(engine.search(query))[0] == "blue.png"


def test_an_item_that_is_a_sound_finds_its_like_and_not_itself(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    item = engine.find(str(folder / "green.flac"))
    assert item is not None
    assert names(ask(engine, item=item.id, modality=AUDIO))[0] == "blue.mp3"
    assert "green.flac" not in names(ask(engine, item=item.id))
    with pytest.raises(ItemNotFound):
        ask(engine, item=999)


def test_an_unchanged_recording_is_not_decoded_again(engine: Engine, toy: ToyEncoder, folder: Path) -> None:
    index(engine, [folder])
    heard = toy.encoded_sounds
    assert counts(index(engine, [folder])) == {"unchanged": 7}
    (folder / "red.wav").touch()
    assert counts(index(engine, [folder])) == {"unchanged": 7}
    assert toy.encoded_sounds == heard


def test_a_changed_recording_gets_new_parts_and_keeps_its_id(engine: Engine, folder: Path) -> None:
    index(engine, [folder])
    before = engine.find(str(folder / "red.wav"))
    assert before is not None
    save_sound(folder / "red.wav", tone("blue", seconds=2.5))
    assert counts(index(engine, [folder])) == {"updated": 1, "unchanged": 6}
    after = engine.find(str(folder / "red.wav"))
    assert after is not None
    assert after.id == before.id
    assert len(after.parts) == 2
    assert names(ask(engine, text="blue", modality=AUDIO))[0] in {"red.wav", "blue.mp3"}


def test_copies_and_renamed_recordings_are_not_encoded_again(
    engine: Engine, toy: ToyEncoder, folder: Path
) -> None:
    shutil.copy(folder / "blue.mp3", folder / "twin.mp3")
    report = index(engine, [folder])
    assert report.copies == 1
    assert toy.encoded_sounds == 5
    shutil.copy(folder / "red.wav", folder / "again.wav")
    (folder / "green.flac").rename(folder / "leaf.flac")
    assert counts(index(engine, [folder])) == {"added": 1, "copies": 1, "renamed": 1, "unchanged": 7}
    assert toy.encoded_sounds == 5
    for name, other in (("blue.mp3", "twin.mp3"), ("red.wav", "again.wav")):
        one, copy = engine.find(str(folder / name)), engine.find(str(folder / other))
        assert one is not None
        assert copy is not None
        assert copy.attributes == one.attributes
        np.testing.assert_array_equal(engine.vectors(one), engine.vectors(copy))
        assert [(part.start, part.end) for part in one.parts] == [
            (part.start, part.end) for part in copy.parts
        ]
    again = engine.find(str(folder / "again.wav"))
    assert again is not None
    assert again.title == "Ruby"
    copies = {frozenset((hit.item.key, *hit.copies)) for hit in ask(engine, text="blue") if hit.copies}
    assert copies == {
        frozenset(str(folder / name) for name in pair)
        for pair in (("blue.mp3", "twin.mp3"), ("red.wav", "again.wav"))
    }


def test_what_is_no_recording_is_a_line_with_its_reason(engine: Engine, folder: Path) -> None:
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no sound")
    save_sound(folder / "silent.wav", tone(seconds=1))
    save_track(folder / "mute.mp4", tone(seconds=0), picture=True)
    cut = save_sound(folder / "cut.aiff", tone("red", seconds=2))
    cut.write_bytes(cut.read_bytes()[:30_000])
    report = index(engine, [folder])
    reasons = {Path(line.path).name: line.reason for line in report.skipped}
    assert reasons.keys() == {"empty.wav", "text.mp3", "silent.wav", "mute.mp4"}
    assert "empty" in reasons["empty.wav"]
    assert "not a sound" in reasons["text.mp3"]
    assert "silent" in reasons["silent.wav"]
    assert "no sound track" in reasons["mute.mp4"]
    (note,) = report.notes
    assert note.path.endswith("cut.aiff")
    assert "cut short" in note.reason
    assert report.added == 8


def test_a_model_without_the_tower_leaves_sounds_out_and_says_so_once(tmp_path: Path, folder: Path) -> None:
    with Engine.open(tmp_path / "deaf", model=save_colour_model(tmp_path / "model", audio=False)) as engine:
        report = index(engine, [folder])
        assert counts(report) == {"added": 4}
        (line,) = report.skipped
        assert line.reason.startswith("3 files such as ")
        assert "cannot encode audio" in line.reason
        with pytest.raises(ModelError, match="no audio tower"):
            ask(engine, audio=folder / "red.wav")


def test_sounds_indexed_before_stay_when_the_model_cannot_hear_any_more(
    engine: Engine, toy: ToyEncoder, folder: Path
) -> None:
    index(engine, [folder])
    toy.modalities = frozenset({IMAGE, TEXT})
    report = index(engine, [folder])
    assert counts(report) == {"unchanged": 4}
    assert len(list(engine.items())) == 7


def test_without_the_extra_sound_tracks_are_left_out_and_stay_if_they_were_indexed(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_track(folder / "film.m4a", tone("red", rate=48_000))
    index(engine, [folder])
    save_track(folder / "other.m4a", tone("green", rate=48_000))
    save_track(folder / "misnamed.m4a", tone("green", "red", rate=48_000)).rename(folder / "misnamed.wav")
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    report = index(engine, [folder])
    assert counts(report) == {"unchanged": 7}
    reasons = sorted(line.reason for line in report.skipped)
    assert len(reasons) == 2
    assert all("mmsearch[av]" in reason for reason in reasons)
    assert engine.find(str(folder / "film.m4a")) is not None
    with pytest.raises(MissingExtra, match=r"mmsearch\[av\]"):
        ask(engine, audio=folder / "other.m4a")


def test_programs_add_sounds_by_path_by_samples_and_by_stretch(engine: Engine, folder: Path) -> None:
    samples = np.concatenate([tone("red", seconds=2), tone("blue", seconds=2)])
    path = save_sound(folder / "both.wav", samples)
    parts = {
        "path": NewPart(modality=AUDIO, content=folder / "red.wav"),
        "samples": NewPart(modality=AUDIO, content=tone("green")),
        "stretch": NewPart(modality=AUDIO, content=path, start=2.1, end=3.9),
        "mean": NewPart(modality=AUDIO, content=str(path)),
    }
    engine.add([NewItem(key=key, modality=AUDIO, parts=[part]) for key, part in parts.items()])
    assert ask(engine, text="red")[0].item.key == "path"
    assert ask(engine, text="green")[0].item.key == "samples"
    assert ask(engine, text="blue")[0].item.key == "stretch"
    assert ask(engine, vector=np.array([1, 0, 1, 0.5], np.float32))[0].item.key == "mean"
    with pytest.raises(MediaError, match="no such file"):
        engine.add([NewItem(key="x", modality=AUDIO, parts=[NewPart(modality=AUDIO, content="gone.wav")])])
    with pytest.raises(QueryError, match="exactly one of"):
        ask(engine, audio=path, text="red")


def test_sounds_travel_with_an_export(engine: Engine, folder: Path, tmp_path: Path) -> None:
    index(engine, [folder])
    export_collection(engine, tmp_path / "all.jsonl")
    with Engine.open(tmp_path / "other", model=ToyEncoder()) as other:
        import_collection(other, tmp_path / "all.jsonl")
        for query in ("red", "green", "blue"):
            one, two = ask(engine, text=query, modality=AUDIO), ask(other, text=query, modality=AUDIO)
            assert [(h.item.key, h.part.start, h.part.end, h.score) for h in one] == [
                (h.item.key, h.part.start, h.part.end, h.score) for h in two
            ]
        assert other.check() == []


def test_of_a_recording_that_is_found_by_its_words_the_hit_is_where_they_are(engine: Engine) -> None:
    heard = NewPart(modality=AUDIO, content=tone("blue"), start=0, end=1)
    said = NewPart(modality=TEXT, content="a quince", start=8, end=9)
    engine.add(
        [
            NewItem(key="memo", modality=AUDIO, parts=[heard, said]),
            *(NewItem(key=f"{n}", modality=AUDIO, parts=[heard]) for n in range(3)),
        ]
    )
    vector = np.array([0, 0, 1, 0.25], np.float32)
    query = Query(terms=(Term(text="quince", weight=1e-3), Term(vector=vector)), hybrid=True)
    (memo,) = [hit for hit in engine.search(query) if hit.item.key == "memo"]
    assert (memo.part.text, memo.part.start) == ("a quince", 8)
    (memo,) = [hit for hit in ask(engine, vector=vector) if hit.item.key == "memo"]
    assert memo.part.start == 0


# -- one list of several modalities --------------------------------------------------------------------------------


def things(count: int = 60) -> list[NewItem]:
    """Vectors of three modalities, each in a cone of its own, as towers put them."""
    cones = dict(zip(MEDIA, directions(3, 4, seed=5), strict=True))
    items = []
    for n, direction in enumerate(directions(count, 4, seed=6)):
        modality = list(MEDIA)[n % 3]
        vector = unit(direction * (0.2 + 0.3 * (n % 3)) + cones[modality])
        items.append(
            NewItem(
                key=f"{modality}-{n}", modality=modality, parts=[NewPart(modality=modality, vector=vector)]
            )
        )
    return items


def give_means(toy: ToyEncoder, items: list[NewItem]) -> None:
    vectors = {m: np.array([i.parts[0].vector for i in items if i.modality is m]) for m in MEDIA}
    toy.means = {m: np.asarray(rows.mean(axis=0), np.float32) for m, rows in vectors.items()}
    toy.spreads = {
        asked: {
            found: float(np.percentile((vectors[asked] @ (vectors[found] - toy.means[found]).T), 99))
            for found in MEDIA
        }
        for asked in MEDIA
    }


@pytest.mark.parametrize("asked", [TEXT, AUDIO, None])
def test_a_mixed_list_is_ranked_by_spreads_beyond_the_means(
    engine: Engine, toy: ToyEncoder, asked: Modality | None
) -> None:
    items = things()
    give_means(toy, items)
    engine.add(items)
    query = (
        {"text": "red"}
        if asked is TEXT
        else {"audio": tone("red")}
        if asked
        else {"vector": directions(1, 4)[0]}
    )
    vector = (
        toy.encode_texts(["red"])[0]
        if asked is TEXT
        else toy.encode_audio([tone("red")])[0]
        if asked
        else directions(1, 4)[0]
    )
    rows = [asked] if asked else list(MEDIA)
    spread = {m: sum(toy.spreads[row][m] for row in rows) for m in MEDIA}

    def beyond(item: NewItem) -> float:
        m, stored = item.modality, np.asarray(item.parts[0].vector, np.float16).astype(np.float64)
        return float((stored - toy.means[m]) @ vector) / spread[m]

    expected = sorted(items, key=beyond, reverse=True)
    hits = ask(engine, k=len(items), **query)
    assert [hit.item.key for hit in hits] == [item.key for item in expected]
    for hit, item in zip(hits, expected, strict=True):
        score = beyond(item) * spread[IMAGE] + float(toy.means[IMAGE] @ vector)
        assert hit.score == pytest.approx(score, abs=1e-4)
    few = ask(engine, k=7, **query)
    assert [hit.item.key for hit in few] == [item.key for item in expected[:7]]


def test_means_change_nothing_within_one_modality(engine: Engine, toy: ToyEncoder) -> None:
    items = things()
    engine.add(items)
    before = {m: [(h.item.key, h.score) for h in ask(engine, text="red", modality=m)] for m in MEDIA}
    give_means(toy, items)
    assert before == {m: [(h.item.key, h.score) for h in ask(engine, text="red", modality=m)] for m in MEDIA}
    mixed = [hit.item.key for hit in ask(engine, text="red", k=60)]
    for modality, hits in before.items():
        of_it = [key for key in mixed if key.startswith(modality)]
        assert of_it[: len(hits)] == [key for key, _ in hits]
