"""Speech and instruments made on the spot: espeak-ng reads sentences, fluidsynth plays all General MIDI programs."""

import struct
import subprocess
from pathlib import Path

VOICES = (
    "en",
    "en-us+f3",
    "en+m5",
    "de+f2",
    "fr+m3",
    "es+f4",
    "zh",
    "ru+m1",
    "en+whisper",
    "en+croak",
    "hi",
    "pt+f1",
)
SENTENCES = (
    "Please hold the line, somebody will be with you in a moment.",
    "The weather tomorrow will be cloudy, with rain in the evening.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "Can you hear the birds in the garden behind our house?",
)
PROGRAMS, DRUMS = 128, 9
TICKS = 480  # of a beat, half a second each


def read_aloud(folder: Path) -> list[Path]:
    """Each sentence in each voice as a WAV file in `folder` (needs the program espeak-ng)."""
    made = []
    for i, voice in enumerate(VOICES):
        for j, sentence in enumerate(SENTENCES):
            path = folder / f"speech-{i}-{j}.wav"
            speed, pitch = str(120 + 23 * ((i + j) % 5)), str(20 + 15 * ((i + 2 * j) % 5))
            subprocess.run(
                ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", path, sentence], check=True
            )
            made.append(path)
    return made


def general_midi(font: Path, folder: Path) -> list[Path]:
    """Notes, a chord and a run for each of the 128 programs, and a drum loop: WAV files (needs fluidsynth)."""
    made = []
    for program in range(PROGRAMS + 1):
        score, path = folder / f"{program}.mid", folder / f"program-{program}.wav"
        score.write_bytes(_score(program))
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-F", path, "-r", "32000", font, score],
            check=True,
            capture_output=True,
        )
        made.append(path)
    return made


def _score(program: int) -> bytes:
    """A standard MIDI file with one track."""
    channel = DRUMS if program == PROGRAMS else 0
    events = b"" if channel == DRUMS else _event(0, 0xC0, program)
    if channel == DRUMS:
        for step in range(32):
            events += _notes(
                [(36, 42), (46,), (38, 42), (49, 51, 45)[: 1 + step % 3]][step % 4], channel, 0.5
            )
    else:
        for note in (36, 48, 60, 72, 84):
            events += _notes((note,), channel, 2)
        events += _notes((48, 60, 64, 67), channel, 3)
        for note in (60, 62, 64, 67, 72, 67, 64, 62) * 2:
            events += _notes((note,), channel, 0.4)
    track = events + b"\x00\xff\x2f\x00"
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS) + struct.pack(">4sI", b"MTrk", len(track)) + track


def _notes(notes: tuple[int, ...], channel: int, beats: float) -> bytes:
    on = b"".join(_event(0, 0x90 | channel, note, 100) for note in notes)
    first, rest = notes[0], notes[1:]
    off = _event(int(beats * TICKS), 0x80 | channel, first, 0)
    return on + off + b"".join(_event(0, 0x80 | channel, note, 0) for note in rest)


def _event(delay: int, *data: int) -> bytes:
    length = bytes([delay & 0x7F])
    while delay := delay >> 7:
        length = bytes([delay & 0x7F | 0x80]) + length
    return length + bytes(data)
