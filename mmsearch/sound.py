"""Recordings become mono samples here, in blocks, so that an hour costs no more memory than a minute.

A recording is decoded twice: once to learn how loud it is when, which decides how it is cut (``mmsearch.cutting``), and
once more to take the parts out. libsndfile reads WAV, FLAC, Ogg, Opus, MP3, AIFF, AU and CAF by what is in the file
and not by its name; the sound of MP4, M4A, AAC, MOV, WebM and MKA files is read by FFmpeg (extra ``av``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.cutting import cut_sound
from mmsearch.errors import MediaError, MissingExtra
from mmsearch.exif import words
from mmsearch.types import AttributeValue, AudioWindow, Waveform

__all__ = [
    "SOUND_SUFFIXES",
    "TRACK_SUFFIXES",
    "Sound",
    "cut_waveform",
    "is_longer",
    "needs_extra",
    "read_sound",
]

SOUND_SUFFIXES = frozenset(
    (
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aiff",
        ".aif",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
    )
)
"""Lower-case suffixes of sound files."""

TRACK_SUFFIXES = frozenset((".m4a", ".mp4", ".m4v", ".aac", ".mov", ".webm", ".mka"))
"""Lower-case suffixes of sound files, and of films with a sound track, that need the extra ``av``."""

MAX_SECONDS = 24 * 3600
"""A longer recording is refused: a few bytes of FLAC can claim months of silence."""

SILENT = 1e-4
"""A recording whose loudest moment is below this (80 dB under full scale) is silent."""

FRAME_SECONDS = 0.02
"""Loudness is measured over frames of about this length."""

_BLOCK = 1 << 17  # samples of all channels decoded at a time
_KEPT = 1 << 22  # mono samples (16 MB): a shorter recording is kept between the two passes
# A playlist with the name of a film would make FFmpeg open the files and addresses that it lists.
_ALLOWED = {"format_whitelist": "mov,matroska,aac", "protocol_whitelist": "file"}
_RATES = range(1_000, 768_001)


@dataclasses.dataclass
class _Track:
    """An opened recording. ``frames`` is how many its header claims (0: it does not say)."""

    format: str
    sample_rate: int
    channels: int
    frames: int
    tags: Mapping[str, str]
    blocks: Iterator[NDArray[np.float32]]  # mono
    cut_short: bool = False


class Sound:
    """A recording that was looked at once: its facts, and where its parts are.

    ``spans`` are (start, end) of the parts in seconds, in their order. ``title`` is the one in its tags.
    ``attributes``: ``duration`` (seconds), ``sample_rate`` (Hz), ``channels``, ``format``, and of the tags ``artist``,
    ``album``, ``genre``, ``comment``, ``track`` and ``year``. ``notes`` say what was odd.
    """

    def __init__(
        self, path: Path, name: object, window: AudioWindow, span: tuple[float, float] | None = None
    ) -> None:
        self._path, self._name, self._window = path, name, window
        with _opened(path, name) as track:
            self.title = words(track.tags.get("title"))
            self._rate = track.sample_rate
            loudness = _Loudness(self._rate)
            kept: list[NDArray[np.float32]] = []
            for block in track.blocks:
                if not np.isfinite(block).all():
                    raise MediaError(name, "holds samples that are no numbers (NaN or infinity)")
                loudness.add(block)
                if loudness.samples <= _KEPT:
                    kept.append(block)
                if loudness.samples > MAX_SECONDS * self._rate:
                    raise MediaError(name, f"is longer than {MAX_SECONDS // 3600} hours")
            length = loudness.samples
            self._kept = kept if length <= _KEPT else None
            del kept
            if not length:
                raise MediaError(name, "is damaged" if track.cut_short else "has no sound in it (0 seconds)")
            self.attributes = _facts(track, length)
            short = track.cut_short or length < track.frames - self._rate / 10
            self.notes = (
                (f"is cut short or damaged: read up to second {length / self._rate:.1f}",) if short else ()
            )
        self._scale = 1 / max(1.0, loudness.peak)
        self._spans = _cut(loudness, window, span)
        if not self._spans:
            raise MediaError(name, "is silent" if span is None else "is silent there, or ends before")
        self.spans = tuple((start / self._rate, end / self._rate) for start, end in self._spans)

    def clips(self) -> Iterator[Waveform]:
        """The samples of each part at the window's rate, decoded as they are asked for. Raises ``MediaError``."""
        import soxr

        with contextlib.ExitStack() as stack:
            if self._kept is not None:
                blocks = iter(self._kept)
            else:
                blocks = stack.enter_context(_opened(self._path, self._name)).blocks
            buffer, first = np.zeros(0, np.float32), 0
            for start, end in self._spans:
                while first + len(buffer) < end:
                    block = next(blocks, None)
                    if block is None:
                        raise MediaError(self._name, "changes while it is read")
                    past = min(max(0, start - first), len(buffer))
                    buffer, first = np.concatenate((buffer[past:], block)), first + past
                clip = buffer[start - first : end - first] * np.float32(self._scale)
                yield soxr.resample(clip, self._rate, self._window.sample_rate)


def needs_extra(path: str | Path) -> bool:
    """Whether the file, by its suffix, needs the extra ``av``, which is not installed."""
    return os.path.splitext(path)[1].lower() in TRACK_SUFFIXES and importlib.util.find_spec("av") is None


def read_sound(
    path: Path, window: AudioWindow, *, name: object = None, span: tuple[float, float] | None = None
) -> Sound:
    """Look at a recording and cut it into parts as ``window`` says, silence left out.

    ``span`` (seconds) limits it to a stretch. ``name`` is what errors call it.

    Raises ``MediaError`` if it is no recording, damaged at its beginning, empty, silent, without a sound track, longer
    than a day, or holds numbers that are none; ``MissingExtra`` if reading it needs the extra ``av``.
    """
    return Sound(path, path if name is None else name, window, span)


def is_longer(path: Path, seconds: float, name: object) -> bool:
    """See ``mmsearch.media.sound_is_longer``."""
    with _opened(path, name) as track:
        most = min(seconds * track.sample_rate, seconds * 96_000 / max(1, track.channels))
        if track.frames > most:
            return True
        heard = 0
        for block in track.blocks:
            heard += len(block)
            if heard > most:
                return True
    return False


def cut_waveform(samples: Waveform, window: AudioWindow) -> list[Waveform]:
    """The parts of samples that are at the window's rate already. Raises ``MediaError`` if they are none, or silent."""
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not len(samples):
        raise MediaError("waveform", f"has the shape {samples.shape}, not (samples,)")
    if not np.isfinite(samples).all():
        raise MediaError("waveform", "holds samples that are no numbers (NaN or infinity)")
    loudness = _Loudness(window.sample_rate)
    loudness.add(samples)
    spans = _cut(loudness, window)
    if not spans:
        raise MediaError("waveform", "is silent")
    scale = np.float32(1 / max(1.0, loudness.peak))
    return [samples[start:end] * scale for start, end in spans]


class _Loudness:
    """How loud a recording is over time, from blocks of any length."""

    def __init__(self, sample_rate: int) -> None:
        self.frame = max(1, round(sample_rate * FRAME_SECONDS))  # samples
        self.rate = sample_rate
        self.samples = 0
        self.peak = 0.0
        self._rest = np.zeros(0, np.float32)
        self._levels: list[NDArray[np.float32]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        self.samples += len(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
        block = np.concatenate((self._rest, block))
        whole = len(block) // self.frame * self.frame
        self._levels.append(_rms(block[:whole].reshape(-1, self.frame)))
        self._rest = block[whole:]

    def levels(self) -> NDArray[np.float32]:
        """Root mean square of each frame; the last one may be shorter."""
        rest = [_rms(self._rest[np.newaxis])] if len(self._rest) else []
        return np.concatenate([*self._levels, *rest])


def _rms(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    power: NDArray[np.float32] = np.einsum("fs,fs->f", frames, frames) / np.float32(frames.shape[1])
    return np.sqrt(power)


def _cut(
    loudness: _Loudness, window: AudioWindow, span: tuple[float, float] | None = None
) -> list[tuple[int, int]]:
    """(start, end) in samples of the parts; none if it is silent."""
    if loudness.peak < SILENT:
        return []
    levels, frame = loudness.levels(), loudness.frame
    if span is not None:
        first, last = (int(second * loudness.rate / frame) for second in span)
        levels[:first] = 0
        levels[last + 1 :] = 0
    per_second = loudness.rate / frame
    longest = max(1, int(window.seconds * per_second))
    parts = cut_sound(levels, longest, max(1, int(window.hop_seconds * per_second)))
    return [(start * frame, min(end * frame, loudness.samples)) for start, end in parts]


def _facts(track: _Track, length: int) -> dict[str, AttributeValue]:
    year = re.search(r"\b(1[89]|20)\d\d\b", track.tags.get("date", ""))
    number = re.match(r"\s*(\d{1,4})\b", track.tags.get("tracknumber", ""))
    facts: dict[str, AttributeValue | None] = {
        "duration": round(length / track.sample_rate, 3) if length else None,
        "sample_rate": track.sample_rate,
        "channels": track.channels,
        "format": track.format,
        "year": int(year[0]) if year else None,
        "track": int(number[1]) if number else None,
        **{name: words(track.tags.get(name)) for name in ("artist", "album", "genre", "comment")},
    }
    return {name: value for name, value in facts.items() if value is not None}


@contextlib.contextmanager
def _opened(path: Path, name: object) -> Iterator[_Track]:
    """The recording in a file, by what is in it."""
    import soundfile

    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise MediaError(name, f"cannot be read ({error.strerror or error})") from None
    if not head:
        raise MediaError(name, "is empty (zero bytes)")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(soundfile.SoundFile(path))
        except soundfile.SoundFileError as error:
            if path.suffix.lower() in TRACK_SUFFIXES or _is_container(head):
                track = stack.enter_context(_opened_by_ffmpeg(path, name))
            else:
                raise MediaError(name, f"is not a sound that can be read ({_complaint(error)})") from None
        else:
            track = _opened_by_libsndfile(file)
        if track.sample_rate not in _RATES:
            raise MediaError(name, f"claims a sample rate of {track.sample_rate} Hz")
        yield track


def _opened_by_libsndfile(file: Any) -> _Track:
    import soundfile

    tags = {key: value for key, value in file.copy_metadata().items() if value}
    format = "OPUS" if file.subtype == "OPUS" else {"WAVEX": "WAV"}.get(file.format, file.format)

    def blocks() -> Iterator[NDArray[np.float32]]:
        frames = max(1, _BLOCK // file.channels)
        while True:
            try:
                block = file.read(frames, dtype="float32", always_2d=True)
            except soundfile.SoundFileError:
                track.cut_short = True
                return
            if not len(block):
                return
            yield block.mean(axis=1, dtype=np.float32)

    # The log says "(should be ...)" of a chunk whose claimed size is not what is there; a recorder that writes to a
    # pipe cannot know it and claims nothing or everything.
    claimed = re.search(r"^ *(?:data|SSND) *: (\w+) \(should be", file.extra_info, re.M)
    short = claimed is not None and claimed[1] not in ("0", "0xFFFFFFFF", "4294967295", "2147483647")
    frames = file.frames if 0 < file.frames < 1 << 48 else 0
    track = _Track(format, file.samplerate, file.channels, frames, tags, blocks(), short)
    return track


@contextlib.contextmanager
def _opened_by_ffmpeg(path: Path, name: object) -> Iterator[_Track]:
    try:
        import av
    except ImportError as error:
        kind = path.suffix.lower().removeprefix(".").upper()
        raise MissingExtra(f"{name}: the sound of {kind or 'such'} files", "av") from error
    try:
        container = av.open(str(path), options=_ALLOWED, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(name, f"is not a sound that can be read ({_complaint(error)})") from None
    with container:
        if not container.streams.audio:
            raise MediaError(name, "has no sound track")
        stream = container.streams.audio[0]
        # FFmpeg's own rule mixes the channels down; the rate stays, because one resampler serves both decoders.
        mixer = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)

        def blocks() -> Iterator[NDArray[np.float32]]:
            waiting: list[NDArray[np.float32]] = []  # frames are of a fiftieth of a second
            try:
                for frame in itertools.chain(container.decode(stream), [None]):
                    waiting += [
                        np.asarray(mixed.to_ndarray(), np.float32)[0] for mixed in mixer.resample(frame)
                    ]
                    if sum(map(len, waiting)) >= _BLOCK:
                        yield np.concatenate(waiting)
                        waiting.clear()
            except (av.error.FFmpegError, ValueError):
                track.cut_short = True
            if waiting:
                yield np.concatenate(waiting)

        seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else 0
        if not seconds and container.duration and not container.streams.video:
            seconds = Fraction(container.duration, av.time_base)
        tags = {key.lower(): value for key, value in {**container.metadata, **stream.metadata}.items()}
        tags.setdefault("tracknumber", tags.get("track", ""))
        track = _Track(
            path.suffix.lower().removeprefix(".").upper() or container.format.name.upper(),
            stream.rate or 0,
            stream.channels,
            math.floor(seconds * (stream.rate or 0)),
            tags,
            blocks(),
        )
        yield track


def _is_container(head: bytes) -> bool:
    """Whether a file begins like MP4 or QuickTime, Matroska or WebM, or a stream of AAC."""
    boxes = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
    aac = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return head[4:8] in boxes or head.startswith(b"\x1aE\xdf\xa3") or aac


def _complaint(error: Exception) -> str:
    """What a library says about a file, without the file's name."""
    said = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(said).strip().rstrip(".")
