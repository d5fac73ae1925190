"""Decoding recordings: formats, rates, channels, and everything that can be wrong with a file."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.errors import MediaError, MissingExtra
from mmsearch.media import load_sound, modality_of
from mmsearch.sound import SOUND_SUFFIXES, TRACK_SUFFIXES, Sound, cut_waveform, needs_extra, read_sound
from mmsearch.types import AudioWindow, Modality, Waveform
from tests.sounds import CONTAINERS, FORMATS, save_sound, save_track
from tests.toy import RATE, TONES, tone

WINDOW = AudioWindow(RATE, seconds=2.0, hop_seconds=1.0)


def shares(clip: Waveform) -> dict[str, float]:
    """How the power of a clip spreads over the three tones, by a Fourier transform; the rest is "other"."""
    power = np.abs(np.fft.rfft(clip * np.hanning(len(clip)))) ** 2
    hertz = np.fft.rfftfreq(len(clip), 1 / RATE)
    found = {name: float(power[np.abs(hertz - tone) < 40].sum()) for name, tone in TONES.items()}
    return {name: value / float(power.sum()) for name, value in found.items()} | {
        "other": 1 - sum(found.values()) / float(power.sum())
    }


def only_clip(sound: Sound) -> Waveform:
    (clip,) = sound.clips()
    return clip


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_of_libsndfile_gives_the_sound_that_was_written(tmp_path: Path, suffix: str) -> None:
    path = save_sound(tmp_path / f"a.{suffix}", tone("green", seconds=1.5, rate=48_000), rate=48_000)
    sound = read_sound(path, WINDOW)
    clip = only_clip(sound)
    assert clip.dtype == np.float32
    assert len(clip) == pytest.approx(1.5 * RATE, abs=0.05 * RATE)
    assert shares(clip)["green"] > 0.99
    assert np.sqrt(np.mean(clip**2)) == pytest.approx(0.5 / np.sqrt(2), abs=0.02)
    assert sound.attributes["format"] == suffix.upper()
    assert sound.attributes["duration"] == pytest.approx(1.5, abs=0.06)
    assert sound.notes == ()


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_container_of_the_extra_gives_the_sound_that_was_written(tmp_path: Path, suffix: str) -> None:
    path = save_track(tmp_path / f"a.{suffix}", tone("green", seconds=1.5, rate=48_000))
    sound = read_sound(path, WINDOW)
    assert shares(only_clip(sound))["green"] > 0.98
    assert sound.attributes["format"] == suffix.upper()
    assert sound.attributes["duration"] == pytest.approx(1.5, abs=0.06)
    assert sound.attributes["sample_rate"] == 48_000
    assert sound.notes == ()


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_sample_rate_becomes_the_encoders(tmp_path: Path, rate: int) -> None:
    sound = read_sound(save_sound(tmp_path / "a.wav", tone("green", rate=rate), rate=rate), WINDOW)
    clip = only_clip(sound)
    assert len(clip) == pytest.approx(RATE, abs=2)
    np.testing.assert_allclose(clip[1000:-1000], tone("green")[1000 : len(clip) - 1000], atol=5e-3)
    assert sound.attributes["sample_rate"] == rate


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_channels_are_mixed_down(tmp_path: Path, channels: int) -> None:
    """Of a tone on the first channel alone the mix has a share, as loud as there are few channels."""
    samples = np.zeros((RATE, channels), np.float32)
    samples[:, 0] = tone("red")
    sound = read_sound(save_sound(tmp_path / "a.wav", samples), WINDOW)
    np.testing.assert_allclose(only_clip(sound), tone("red") / channels, atol=1e-4)
    assert sound.attributes["channels"] == channels


def test_a_long_recording_comes_in_overlapping_parts_with_their_seconds(tmp_path: Path) -> None:
    samples = np.concatenate([tone("red", seconds=2), tone("blue", seconds=3)])
    sound = read_sound(save_sound(tmp_path / "a.flac", samples), WINDOW)
    assert sound.spans == ((0, 2), (1, 3), (2, 4), (3, 5))
    for (start, end), clip in zip(sound.spans, sound.clips(), strict=True):
        np.testing.assert_allclose(clip, samples[int(start * RATE) : int(end * RATE)], atol=1e-4)


def test_silence_is_skipped(tmp_path: Path) -> None:
    samples = np.concatenate(
        [tone(seconds=3), tone("red", seconds=1), tone(seconds=60), tone("blue", seconds=1)]
    )
    sound = read_sound(save_sound(tmp_path / "a.wav", samples), WINDOW)
    assert [(round(start, 1), round(end, 1)) for start, end in sound.spans] == [(3, 4), (64, 65)]
    red, blue = sound.clips()
    assert shares(red)["red"] > 0.99
    assert shares(blue)["blue"] > 0.99
    assert sound.attributes["duration"] == 65


def test_parts_of_a_recording_too_long_to_keep_are_those_of_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pass over the file gives what was kept of the first."""
    path = save_sound(tmp_path / "a.wav", np.concatenate([tone("red", seconds=9), tone("blue", seconds=4)]))
    kept = list(read_sound(path, WINDOW).clips())
    monkeypatch.setattr("mmsearch.sound._KEPT", 0)
    monkeypatch.setattr("mmsearch.sound._BLOCK", 1000)
    for one, other in zip(kept, read_sound(path, WINDOW).clips(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Ten minutes at 48 kHz are 115 MB as one array of floats; 40 MB are enough for any length."""
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", 48_000, 1, subtype="PCM_16") as file:
        for _ in range(60):
            file.write(tone("red", seconds=10, rate=48_000))
    read_sound(save_sound(tmp_path / "warm.wav", tone("red")), WINDOW)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_sound(path, WINDOW).clips())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 599
    assert peak < 40_000_000


def test_tags_become_title_and_attributes(tmp_path: Path) -> None:
    tags = {"title": "Dawn", "artist": "A\nBird", "album": "Woods", "genre": "Field", "date": "2014-05-02"}
    sound = read_sound(save_sound(tmp_path / "a.flac", tone("red"), tags=tags | {"tracknumber": "3"}), WINDOW)
    assert sound.title == "Dawn"
    told = {name: sound.attributes[name] for name in ("artist", "album", "genre", "year", "track")}
    assert told == {"artist": "A Bird", "album": "Woods", "genre": "Field", "year": 2014, "track": 3}


def test_tags_of_a_container_are_read_too(tmp_path: Path) -> None:
    path = save_track(
        tmp_path / "a.m4a",
        tone("red", rate=48_000),
        tags={"title": "Dawn", "artist": "A Bird", "date": "1999"},
    )
    sound = read_sound(path, WINDOW)
    assert (sound.title, sound.attributes["artist"], sound.attributes["year"]) == ("Dawn", "A Bird", 1999)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "mov"])
def test_of_a_film_the_sound_track_is_heard(tmp_path: Path, suffix: str) -> None:
    path = save_track(tmp_path / f"a.{suffix}", tone("blue", rate=48_000), picture=True)
    assert shares(only_clip(read_sound(path, WINDOW)))["blue"] > 0.95


@pytest.mark.parametrize("suffix", ["mp4", "webm", "mov"])
def test_a_film_without_sound_says_so(tmp_path: Path, suffix: str) -> None:
    path = save_track(tmp_path / f"a.{suffix}", tone(seconds=0), picture=True)
    with pytest.raises(MediaError, match="has no sound track"):
        read_sound(path, WINDOW)


@pytest.mark.parametrize(
    ("kind", "called"), [("mp3", "wav"), ("wav", "mp3"), ("ogg", "flac"), ("flac", "mp4")]
)
def test_a_file_is_what_is_in_it_and_not_what_it_is_called(tmp_path: Path, kind: str, called: str) -> None:
    path = save_sound(tmp_path / f"a.{called}", tone("red"), kind=kind)
    sound = read_sound(path, WINDOW)
    assert sound.attributes["format"] == kind.upper()
    assert shares(only_clip(sound))["red"] > 0.99


def test_a_container_with_the_name_of_a_plain_file_is_read(tmp_path: Path) -> None:
    path = save_track(tmp_path / "a.m4a", tone("red", rate=48_000)).rename(tmp_path / "a.mp3")
    assert shares(only_clip(read_sound(path, WINDOW)))["red"] > 0.98


def test_without_the_extra_a_container_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_track(tmp_path / "a.m4a", tone("red", rate=48_000))
    assert not needs_extra(path)
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    assert needs_extra(path)
    with pytest.raises(MissingExtra, match=r"a\.m4a: the sound of M4A files needs .*mmsearch\[av\]"):
        read_sound(path, WINDOW)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff", "opus"])
def test_a_recording_cut_short_is_read_as_far_as_it_goes(tmp_path: Path, suffix: str) -> None:
    path = save_sound(tmp_path / f"a.{suffix}", tone("red", seconds=20, rate=48_000), rate=48_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sound = read_sound(path, WINDOW)
    assert 5 < sound.spans[-1][1] < 15
    assert shares(next(sound.clips()))["red"] > 0.99
    if suffix != "opus":  # an Opus stream does not say beforehand how long it is
        assert len(sound.notes) == 1
        assert sound.notes[0].startswith("is cut short or damaged: read up to second")


def test_a_recorder_that_cannot_know_the_length_is_no_damage(tmp_path: Path) -> None:
    """What writes WAV into a pipe leaves the sizes open."""
    path = save_sound(tmp_path / "a.wav", tone("red"))
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:4] + b"\xff" * 4 + data[8:at] + b"\xff" * 4 + data[at + 4 :])
    sound = read_sound(path, WINDOW)
    assert sound.notes == ()
    assert sound.attributes["duration"] == 1


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that hold no recording, and what is to be said about them."""
    nothing = np.zeros(0, np.float32)
    hole = tone("red")
    hole[100] = np.nan
    found = {
        "empty": (folder / "empty.wav", "is empty"),
        "text": (folder / "text.wav", "is not a sound that can be read"),
        "noise": (folder / "noise.mp3", "is not a sound that can be read"),
        "head": (folder / "head.flac", "is not a sound that can be read"),
        "film": (folder / "film.mp4", "is not a sound that can be read"),
        "zero": (save_sound(folder / "zero.wav", nothing), "has no sound in it"),
        "silent": (save_sound(folder / "silent.flac", tone(seconds=2)), "is silent"),
        "nan": (save_sound(folder / "nan.wav", hole, subtype="FLOAT"), "no numbers"),
        "inf": (save_sound(folder / "inf.wav", tone("red") / np.float32(0), subtype="FLOAT"), "no numbers"),
        "slow": (save_sound(folder / "slow.wav", tone("red"), rate=7), "sample rate of 7 Hz"),
    }
    found["empty"][0].touch()
    found["text"][0].write_text("This is no recording.\n" * 100)
    found["noise"][0].write_bytes(np.random.default_rng(0).bytes(50_000))
    found["head"][0].write_bytes(save_sound(folder / "whole.flac", tone("red")).read_bytes()[:30])
    found["film"][0].write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 5000)
    return found


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(
    "case", ["empty", "text", "noise", "head", "film", "zero", "silent", "nan", "inf", "slow"]
)
def test_what_holds_no_recording_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    path, says = damaged(tmp_path)[case]
    with pytest.raises(MediaError, match=says) as caught:
        read_sound(path, WINDOW)
    assert caught.value.path == str(path)


def test_a_playlist_with_the_name_of_a_film_opens_nothing(tmp_path: Path) -> None:
    secret = save_track(tmp_path / "secret.aac", tone("red", seconds=3, rate=48_000))
    for suffix in ("mp4", "aac", "webm"):
        path = tmp_path / f"list.{suffix}"
        path.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
        with pytest.raises(MediaError, match="is not a sound that can be read"):
            read_sound(path, WINDOW)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "gone.wav", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(MediaError, match=says):
            next(load_sound(path, WINDOW))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=4000), st.sampled_from(sorted(SOUND_SUFFIXES | TRACK_SUFFIXES)))
def test_any_bytes_are_a_recording_or_a_media_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    try:
        clips = list(read_sound(path, WINDOW).clips())
    except MediaError:
        return
    assert all(np.isfinite(clip).all() for clip in clips)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["wav", "flac", "ogg", "mp3", "aiff", "caf"]))
def test_a_recording_with_a_few_wrong_bytes_is_heard_or_a_media_error(
    tmp_path: Path, data: st.DataObject, suffix: str
) -> None:
    path = tmp_path / f"whole.{suffix}"
    if not path.exists():
        save_sound(path, tone("red", seconds=0.3))
    wrong = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(wrong) - 1), min_size=1, max_size=8)):
        wrong[place] = data.draw(st.integers(0, 255))
    other = tmp_path / f"wrong.{suffix}"
    other.write_bytes(wrong)
    try:
        clips = list(read_sound(other, WINDOW).clips())
    except MediaError:
        return
    assert all(np.isfinite(clip).all() for clip in clips)


def test_a_recording_beyond_full_scale_is_brought_down(tmp_path: Path) -> None:
    path = save_sound(tmp_path / "a.wav", 1000 * tone("red"), subtype="FLOAT")
    assert np.abs(only_clip(read_sound(path, WINDOW))).max() == pytest.approx(1, abs=0.01)


def test_longer_than_a_day_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.sound.MAX_SECONDS", 3600 // 1200)
    with pytest.raises(MediaError, match="is longer than"):
        read_sound(save_sound(tmp_path / "a.wav", tone("red", seconds=4)), WINDOW)


def test_a_span_is_a_part_of_its_own(tmp_path: Path) -> None:
    samples = np.concatenate([tone("red", seconds=4), tone("blue", seconds=1)])
    path = save_sound(tmp_path / "a.wav", samples)
    (clip,) = load_sound(path, WINDOW, span=(4.1, 4.9))
    assert shares(clip)["blue"] > 0.99
    with pytest.raises(MediaError, match="is silent there, or ends before"):
        list(load_sound(path, WINDOW, span=(7, 9)))


def test_bytes_are_read_as_files_are(tmp_path: Path) -> None:
    path = save_sound(tmp_path / "a.ogg", tone("red", seconds=3))
    for one, other in zip(load_sound(path.read_bytes(), WINDOW), load_sound(path, WINDOW), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(MediaError, match="sound: is empty"):
        list(load_sound(b"", WINDOW))


def test_samples_are_cut_as_recordings_are(tmp_path: Path) -> None:
    samples = np.concatenate([tone("red", seconds=3), tone(seconds=2), tone("blue", seconds=1)])
    path = save_sound(tmp_path / "a.wav", samples, subtype="FLOAT")
    for one, other in zip(cut_waveform(samples, WINDOW), read_sound(path, WINDOW).clips(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.zeros(0, np.float32), "shape"),
        (np.zeros((2, 100), np.float32), "shape"),
        (np.zeros(100, np.float32), "silent"),
        (np.full(100, np.nan, np.float32), "no numbers"),
    ],
)
def test_samples_that_are_no_sound_are_refused(samples: Waveform, says: str) -> None:
    with pytest.raises(MediaError, match=says):
        cut_waveform(samples, WINDOW)


def test_sound_files_are_known_by_their_suffix() -> None:
    for suffix in SOUND_SUFFIXES | TRACK_SUFFIXES:
        assert modality_of(f"a{suffix}") is Modality.AUDIO
        assert modality_of(Path(f"a{suffix.upper()}")) is Modality.AUDIO
