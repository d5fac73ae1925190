"""Sound files for tests, made when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from tests.toy import RATE

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
}
"""Suffix -> libsndfile's format and subtype."""

CONTAINERS = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "aac"),
    "webm": ("webm", "libopus"),
    "mka": ("matroska", "libopus"),
    "aac": ("adts", "aac"),
}
"""Suffix -> FFmpeg's format and codec."""


def save_sound(
    path: Path,
    samples: NDArray[np.float32],
    *,
    rate: int = RATE,
    kind: str | None = None,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write samples (n,) or (n, channels) in the format of the suffix, or of ``kind``."""
    format, usual = FORMATS[kind or path.suffix.removeprefix(".")]
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, format=format, subtype=subtype or usual) as file:
        for name, value in (tags or {}).items():
            setattr(file, name, value)
        file.write(samples)
    return path


def save_track(
    path: Path,
    samples: NDArray[np.float32],
    *,
    rate: int = 48_000,
    picture: bool = False,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write mono samples as the sound track of the suffix's container; ``picture``: a film of one grey second, and
    ``samples`` empty is a film without sound.
    """
    import av

    format, codec = CONTAINERS[path.suffix.removeprefix(".")]
    with av.open(str(path), "w", format=format) as container:
        container.metadata.update(tags or {})
        film = None
        if picture:
            film = container.add_stream("libvpx" if format == "webm" else "mpeg4", rate=5)
            film.width = film.height = 64
            film.pix_fmt = "yuv420p"
        if len(samples):
            sound = container.add_stream(codec, rate=rate, layout="mono")
            assert isinstance(sound, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
            frame.sample_rate = rate
            for packet in (*sound.encode(frame), *sound.encode(None)):
                container.mux(packet)
        if film is not None:
            for _ in range(5):
                grey = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
                container.mux(film.encode(grey))
            container.mux(film.encode(None))
    return path
