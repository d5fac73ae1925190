"""The audio that the sound tower learns from: where it comes from, and the endless scenes made of it.

Recordings are few (some hours, most of them effects of games), and audio is what limits the tower. Every patch that the
teacher is asked about is therefore new: two or three recordings and synthetic sounds on top of each other, each at
another speed, level and colour, in another room.
"""

import dataclasses
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from math import gcd
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import resample_poly

from mmsearch.training.synthesis import general_midi, read_aloud

RATE = 16_000
SINGLE = 0.35  # of the scenes are one recording by itself
LONGEST = 45  # seconds kept of one recording; games have an hour of music each
SUFFIXES = {".ogg", ".oga", ".wav", ".flac", ".mp3", ".au", ".aif", ".aiff"}
ARCHIVES = {".zip", ".pk3", ".wz"}

Samples = NDArray[np.floating[Any]]
"""Mono at 16 kHz; float32 when read."""

log = logging.getLogger("mmsearch.training")


@dataclasses.dataclass(frozen=True)
class Source:
    """A Debian package or another folder with recordings; `share` is its part of the scenes (not of 1)."""

    name: str
    share: float
    licence: str
    longest: int = LONGEST


EVERYDAY = "sounds"
SOURCES = (
    Source(EVERYDAY, 30, "Pixabay Content Licence or CC0", 120),
    Source("0ad-data", 6, "CC BY-SA 3.0"),
    Source("btanks-data", 1.5, "GPL-2+"),
    Source("bucklespring-data", 0.7, "GPL-2+"),
    Source("bzflag-data", 0.5, "LGPL-2.1 or MPL-2.0"),
    Source("colobot-common-sounds", 1.5, "GPL-3"),
    Source("cube2-data", 1, "CC BY 3.0, CC BY-SA, public domain"),
    Source("endless-sky-data", 0.7, "public domain, CC BY-SA 3.0"),
    Source("fillets-ng-data", 0.7, "GPL-2+"),
    Source("flightgear-data-base", 1.5, "GPL-2+"),
    Source("freeciv-data", 0.3, "GPL-2+"),
    Source("freedink-data", 0.3, "zlib, GPL-3+"),
    Source("freedroidrpg-data", 4, "GPL-2+"),
    Source("frozen-bubble-data", 0.3, "GPL-2"),
    Source("hedgewars-data", 4, "GPL-2"),
    Source("heroes-sound-effects", 0.5, "GPL-2+"),
    Source("hydrogen-drumkits", 2, "GPL-2+"),
    Source("hydrogen-drumkits-effects", 1, "GPL-2+"),
    Source("klettres-data", 1.5, "GPL-2+"),
    Source("ktuberling-data", 0.7, "GPL-2+"),
    Source("lincity-ng-data", 2.5, "GPL-2+"),
    Source("lmms-common", 3, "GPL-2+"),
    Source("lomiri-sounds", 0.5, "CC BY-SA 3.0 and others, free"),
    Source("lugaru-data", 0.5, "GPL-2+, CC BY-SA 3.0 and 4.0"),
    Source("megaglest-data", 5, "CC BY-SA 3.0"),
    Source("minetest-data", 2.5, "CC BY-SA 3.0, CC0"),
    Source("naev-data", 1.5, "GPL-3, CC BY-SA, CC0"),
    Source("openarena-data", 1, "GPL-2"),
    Source("oxygen-sounds", 0.5, "LGPL-3+"),
    Source("pingus-data", 0.2, "GPL-3+"),
    Source("planetblupi-common", 0.5, "GPL-3+"),
    Source("sonic-pi-samples", 3, "CC0"),
    Source("sound-icons", 0.5, "GPL-2+"),
    Source("sound-theme-freedesktop", 0.5, "CC BY-SA 3.0, GPL-2+"),
    Source("supertux-data", 2, "GPL-2+, CC BY-SA"),
    Source("supertuxkart-data", 2.5, "GPL-3+, CC BY-SA 3.0"),
    Source("torcs-data", 1, "GPL-2+, LAL"),
    Source("trigger-rally-data", 0.7, "GPL-2+ and others, free"),
    Source("tuxmath-data", 0.3, "GPL-3+"),
    Source("tuxpaint-data", 0.3, "GPL-2+"),
    Source("tuxtype-data", 0.3, "GPL-3+"),
    Source("unknown-horizons", 2.5, "GPL-2+, CC BY-SA 3.0"),
    Source("warmux-data", 2.5, "GPL-2+"),
    Source("warzone2100-data", 1, "GPL-2+, CC BY-SA 3.0, CC0"),
    Source("wesnoth-1.16-data", 6, "GPL-2+"),
    Source("widelands-data", 3.5, "GPL-2+"),
    Source("yaru-theme-sound", 0.3, "CC BY-SA 4.0"),
    Source("asterisk-core-sounds-en-wav", 2, "CC BY-SA 3.0"),
    Source("asterisk-core-sounds-fr-wav", 1, "CC BY-SA 3.0"),
)
"""Tux Paint's stamps, Scratch's library, GCompris and Scorched 3D are not here: they judge the tower."""

SPOKEN = Source("espeak-ng", 2.5, "GPL-3+ (the program; what it speaks is not)")
PLAYED = Source("fluid-soundfont-gm", 6, "MIT")
JUDGES = ("scratch", "tuxpaint-stamps-default", "scorched3d-data", "gcompris-qt-data")


def read(path: Path | BytesIO, longest: float = LONGEST) -> Samples:
    """A recording as mono float32 at 16 kHz, its first `longest` seconds. Raises soundfile.LibsndfileError."""
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        found = file.read(int(longest * rate), dtype="float32", always_2d=True).mean(1)
    if rate != RATE:
        common = gcd(rate, RATE)
        found = resample_poly(found, RATE // common, rate // common)
    return np.ascontiguousarray(found, np.float32)


class Bank:
    """All recordings in one array, and how likely each is drawn."""

    def __init__(self, samples: NDArray[np.int16], ends: NDArray[np.int64], weights: NDArray[np.float64]):
        self.samples = samples
        self.ends = ends
        self.starts = np.concatenate([[0], ends[:-1]])
        self.edges = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def minutes(self) -> float:
        return len(self.samples) / RATE / 60

    def draw(self, random: np.random.Generator, length: int) -> Samples:
        """A random stretch of a random recording; short recordings are whole, at a random place in silence."""
        row = min(int(np.searchsorted(self.edges, random.random())), len(self) - 1)
        start, end = self.starts[row], self.ends[row]
        if end - start > length:
            start += random.integers(end - start - length + 1)
            return self.samples[start : start + length].astype(np.float32) / 32768
        out = np.zeros(length, np.float32)
        # Parts of the sound may fall off either end: teachers must also see how sounds begin and stop.
        offset = random.integers(-(end - start) // 3, max(1, length - (end - start) * 2 // 3))
        piece = self.samples[start:end][max(0, -offset) :][: length - max(0, offset)]
        out[max(0, offset) : max(0, offset) + len(piece)] = piece.astype(np.float32) / 32768
        return out


def collect(folders: Path, recordings: Path, cache: Path) -> Bank:
    """The bank of all `SOURCES`: unpacked Debian packages `folders`/NAME, and the everyday `recordings`.

    Kept in `cache` between runs. Raises FileNotFoundError that names a missing package.
    """
    stored = cache / "bank.npz"
    if not stored.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pieces, weights = [], []
        for source, found in _sources(folders, recordings):
            if not found:
                raise FileNotFoundError(
                    f"{folders / source.name}: no recordings. apt-get download, dpkg -x it."
                )
            long = np.sqrt([len(samples) for samples in found])
            pieces += found
            weights.append(source.share * long / long.sum())
            seconds = sum(len(samples) for samples in found) / RATE
            log.info("%s: %d clips, %.1f minutes", source.name, len(found), seconds / 60)
        np.save(cache / "bank.npy", np.concatenate(pieces))
        np.savez(stored, ends=np.cumsum([len(piece) for piece in pieces]), weights=np.concatenate(weights))
    with np.load(stored) as arrays:
        return Bank(np.load(cache / "bank.npy", mmap_mode="r"), arrays["ends"], arrays["weights"])


def _sources(folders: Path, recordings: Path) -> Iterator[tuple[Source, list[NDArray[np.int16]]]]:
    for source in SOURCES:
        folder = recordings if source.name == EVERYDAY else folders / source.name
        yield source, _read_all(sorted(folder.rglob("*")), source.longest)
    with tempfile.TemporaryDirectory() as made:
        yield SPOKEN, _read_all(read_aloud(Path(made)), LONGEST)
        fonts = sorted((folders / PLAYED.name).rglob("*.sf2"))
        yield PLAYED, _read_all([p for font in fonts[:1] for p in general_midi(font, Path(made))], LONGEST)


def _read_all(paths: Sequence[Path], longest: int) -> list[NDArray[np.int16]]:
    found = []
    for name, file in _files(paths):
        try:
            samples = read(file, longest)
        except soundfile.LibsndfileError as error:  # some packages ship placeholders
            log.info("%s: left out (%s)", name, error)
            continue
        peak = np.abs(samples).max(initial=0)
        if len(samples) > RATE // 20 and peak > 1e-3:
            found.append((samples * (0.98 * 32767 / peak)).astype(np.int16))
    return found


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, Path | BytesIO]]:
    """The recordings among `paths` and in the archives among them."""
    for path in paths:
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path.name, path
        elif path.suffix in ARCHIVES:
            with ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    if Path(name).suffix.lower() in SUFFIXES:
                        yield name, BytesIO(archive.read(name))


def scene(bank: Bank, random: np.random.Generator, length: int) -> Samples:
    """`length` samples that were never heard before: one recording by itself, or several with noise in other rooms."""
    if random.random() < SINGLE:
        out = bank.draw(random, length)
        if random.random() < 0.3:
            out = _coloured(out, random)
    else:
        out = _layer(bank, random, length)
        while random.random() < 0.4:
            out = out + _layer(bank, random, length) * 10 ** random.uniform(-1.0, 0.3)
    if random.random() < 0.1:
        out = out + _noise(random, length) * 10 ** random.uniform(-2.0, -0.5)
    if random.random() < 0.15:
        out = _narrow(out, random)
    if random.random() < 0.15:  # a recording that begins or ends within the scene: nothing at all beside it
        edge = int(random.integers(length))
        out = out.copy()
        out[slice(edge) if random.random() < 0.3 else slice(edge, None)] = 0
    peak = np.abs(out).max()
    level = 10 ** -abs(random.normal(0, 0.5))  # a teacher that hears levels differently at each
    return (out * (level / max(float(peak), 1e-4))).astype(np.float32)


def _layer(bank: Bank, random: np.random.Generator, length: int) -> Samples:
    """One recording at another speed, colour and place."""
    if random.random() < 0.06:
        return _synthetic(random, length)
    speed = 2 ** float(np.clip(random.normal(0, 0.3), -1, 1)) if random.random() < 0.7 else 1.0
    clip = bank.draw(random, int(length * speed) + 2)
    if speed != 1.0:
        clip = np.interp(np.arange(length) * speed, np.arange(len(clip)), clip).astype(np.float32)
    clip = clip[:length]
    if random.random() < 0.5:
        clip = _coloured(clip, random)
    return clip / max(float(np.abs(clip).max()), 1e-3)


def _coloured(clip: Samples, random: np.random.Generator) -> Samples:
    """Another microphone (a smooth random response) and, every other time, another room (decaying noise)."""
    size = next_fast_len(len(clip) + RATE, real=True)  # rooms are shorter than a second
    spectrum = rfft(clip.astype(np.float32), size)
    points = np.geomspace(60, RATE / 2, 8)
    gains = np.cumsum(random.normal(0, 2.5, 8))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    response = 10 ** (np.interp(frequencies, points, gains - gains.mean()) / 20)
    if random.random() < 0.4:
        decay = 10 ** random.uniform(-1.5, 0)  # seconds to fall by 60 dB
        times = np.arange(int(min(decay, 0.9) * RATE)) / RATE
        room = random.normal(0, 1, len(times)) * np.exp(-6.9 * times / decay)
        room *= random.uniform(0.1, 1.0) / max(np.sqrt((room**2).sum()), 1e-6)
        room[0] += 1.0
        response = response * rfft(room.astype(np.float32), size)
    found: Samples = irfft(spectrum * response, size)[: len(clip)].astype(np.float32)
    return found


def _narrow(clip: Samples, random: np.random.Generator) -> Samples:
    """As recorded at a lower rate: nothing above some frequency."""
    spectrum = rfft(clip)
    spectrum[int(len(spectrum) * random.uniform(0.25, 0.95)) :] = 0
    found: Samples = irfft(spectrum, len(clip)).astype(np.float32)
    return found


def _noise(random: np.random.Generator, length: int) -> Samples:
    """Noise with a power-law spectrum (white, pink, brown and between), peak about 1."""
    spectrum = rfft(random.normal(0, 1, length))
    spectrum *= np.arange(1, len(spectrum) + 1) ** -random.uniform(0, 1)
    noise = irfft(spectrum, length)
    out: Samples = (noise / np.abs(noise).max()).astype(np.float32)
    return out


def _synthetic(random: np.random.Generator, length: int) -> Samples:
    """A chirp or tone with overtones, a train of clicks, or noise that swells and fades."""
    times = np.arange(length) / RATE
    kind = random.integers(3)
    if kind == 0:
        low, high = np.exp(random.uniform(np.log(60), np.log(6000), 2))
        phase = 2 * np.pi * np.cumsum(np.geomspace(low, high, length)) / RATE
        out: Any = sum(random.random() ** n * np.sin(n * phase) for n in range(1, 6))
    elif kind == 1:
        out = np.zeros(length)
        out[:: int(RATE / np.exp(random.uniform(np.log(1), np.log(200))))] = 1
        click = random.normal(0, 1, 400) * np.exp(-np.arange(400) / random.uniform(3, 150))
        out = np.convolve(out, click)[:length]
    else:
        swell = 1 + np.sin(2 * np.pi * random.uniform(0.3, 12) * times + random.uniform(0, 6))
        out = _noise(random, length) * swell
    found: Samples = (out / max(float(np.abs(out).max()), 1e-6)).astype(np.float32)
    return found


def main() -> None:
    """Write the names of all Debian packages that the recipe reads, for `make packages`."""
    names = [source.name for source in (*SOURCES, PLAYED) if source.name != EVERYDAY]
    sys.stdout.write("\n".join([*names, *JUDGES]) + "\n")


if __name__ == "__main__":
    main()
