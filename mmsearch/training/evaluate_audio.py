"""What the sound tower is judged by: recordings of two packages that no training sees, with their names as labels.

Scratch's library of effects (Debian `scratch`, MIT and CC BY-SA) and the effects of Tux Paint's stamps (Debian
`tuxpaint-stamps-default`, GPL-2), each of which belongs to a picture and a caption.
"""

import dataclasses
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.training.features import Floats
from mmsearch.training.sounds import RATE, Samples, read

SECONDS = 10
SCRATCH = "usr/share/scratch/Media/Sounds"
STAMPS = "usr/share/tuxpaint/stamps"
SCRATCH_LABELS = {
    "bird": ("Animal/Bird.wav",),
    "cat": ("Animal/Cat.mp3", "Animal/Kitten.wav", "Animal/Meow.wav"),
    "crickets": ("Animal/Cricket.wav", "Animal/Crickets.wav"),
    "dog": ("Animal/Dog1.wav", "Animal/Dog2.wav"),
    "duck": ("Animal/Duck.wav",),
    "goose": ("Animal/Goose.wav",),
    "horse": ("Animal/Horse.wav",),
    "galloping horse": ("Animal/HorseGallop.wav",),
    "owl": ("Animal/Owl.wav",),
    "rooster": ("Animal/Rooster.wav",),
    "sea lion": ("Animal/SeaLion.mp3",),
    "wolf": ("Animal/WolfHowl.wav",),
    "church bells": ("Effects/BellToll.wav",),
    "bubbles": ("Effects/Bubbles.wav",),
    "car passing by": ("Effects/CarPassing.wav",),
    "door closing": ("Effects/DoorClose.mp3",),
    "door creaking": ("Effects/DoorCreak.wav",),
    "motorcycle": ("Effects/MotorcyclePassing.wav",),
    "sewing machine": ("Effects/SewingMachine.mp3",),
    "keyboard typing": ("Effects/Typing.mp3",),
    "water drops": ("Effects/WaterDrop.mp3",),
    "running water": ("Effects/WaterRunning.mp3",),
    "beeps": ("Electronic/ComputerBeeps1.wav", "Electronic/ComputerBeeps2.wav"),
    "crying baby": ("Human/BabyCry.mp3",),
    "coughing": ("Human/Cough-female.wav", "Human/Cough-male.wav"),
    "finger snapping": ("Human/FingerSnap.wav",),
    "footsteps": ("Human/Footsteps-1.wav", "Human/Footsteps-2.mp3"),
    "laughing": (
        "Human/Laugh-female.wav",
        "Human/Laugh-male1.wav",
        "Human/Laugh-male2.wav",
        "Human/Laugh-male3.mp3",
    ),
    "crowd": ("Human/PartyNoise.wav",),
    "screaming": ("Human/Scream-female.wav", "Human/Scream-male1.wav", "Human/Scream-male2.mp3"),
    "drinking": ("Human/Slurp.mp3",),
    "sneezing": ("Human/Sneeze-female.wav", "Human/Sneeze-male.wav"),
    "guitar": (
        "Instruments/GuitarStrum.wav",
        "Music Loops/GuitarChords1.mp3",
        "Music Loops/GuitarChords2.mp3",
    ),
    "didgeridoo": ("Instruments/Dijjeridoo.mp3",),
    "trumpet": ("Instruments/Trumpet1.wav", "Instruments/Trumpet2.wav"),
    "cymbal": ("Percussion/CymbalCrash.wav", "Percussion/RideCymbal.wav"),
    "gong": ("Percussion/Gong.wav",),
    "hand clap": ("Percussion/HandClap.wav",),
    "maraca": ("Percussion/Shaker.wav",),
    "xylophone": ("Music Loops/Xylo1.mp3", "Music Loops/Xylo2.mp3", "Music Loops/Xylo3.mp3"),
    "drums": ("Music Loops/DrumSet1.mp3", "Music Loops/DrumSet2.mp3"),
}

Encode = Callable[[Sequence[Samples]], Floats]


@dataclasses.dataclass(frozen=True)
class Stamp:
    """An effect of Tux Paint with the caption and the picture that it belongs to."""

    sound: Path
    caption: str
    picture: Path


def scratch_clips(package: Path) -> tuple[list[Path], list[str]]:
    """The labelled effects of the unpacked package `scratch`, and the label of each."""
    pairs = [(package / SCRATCH / name, label) for label, names in SCRATCH_LABELS.items() for name in names]
    return [path for path, _ in pairs], [label for _, label in pairs]


def stamps(package: Path) -> tuple[list[Stamp], list[Path]]:
    """The effects of the unpacked package, without letters and digits, and the pictures of all stamps with captions."""
    folder = package / STAMPS
    pictures = [path for path in sorted(folder.rglob("*.png")) if path.with_suffix(".txt").exists()]
    found = []
    for picture in pictures:
        sound = picture.with_suffix(".ogg")
        if sound.exists() and "symbols" not in picture.relative_to(folder).parts:
            caption = picture.with_suffix(".txt").read_text("utf-8").split("\n")[0].strip()
            if caption:
                found.append(Stamp(sound, caption, picture))
    return found, pictures


def load(paths: Sequence[Path]) -> list[Samples]:
    """The first ten seconds of each recording, short ones padded to one second."""
    clips = [read(path, SECONDS) for path in paths]
    return [np.pad(clip, (0, max(0, RATE - len(clip)))) for clip in clips]


def zero_shot(
    sounds: Floats, texts: Floats, labels: NDArray[np.int64], choices: int = 10
) -> dict[str, float]:
    """Top-1 among all classes, and its expectation when the right class stands among `choices` random ones."""
    scores = sounds @ texts.T
    right = scores[np.arange(len(labels)), labels]
    better = (scores > right[:, None]).sum(1)
    others = len(texts) - 1
    chance = [comb(others - int(b), choices - 1) / comb(others, choices - 1) for b in better]
    return {
        f"top_1_of_{len(texts)}": round(100 * float((better == 0).mean()), 1),
        f"top_1_of_{choices}": round(100 * float(np.mean(chance)), 1),
    }


def hit_at(queries: Floats, items: Floats, right: NDArray[np.int64], k: int = 10) -> float:
    """Per cent of queries whose right item is among the best k."""
    scores = queries @ items.T
    better = (scores > scores[np.arange(len(right)), right][:, None]).sum(1)
    return round(100 * float((better < k).mean()), 1)


def evaluate_sounds(
    packages: Path,
    sounds: Encode,
    texts: Callable[[Sequence[str]], Floats],
    pictures: Callable[[Sequence[Path]], Floats],
) -> dict[str, Any]:
    """Zero-shot on Scratch's effects, by name and as "the sound of ..."; stamps to captions and to pictures."""
    paths, names = scratch_clips(packages / "scratch")
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names])
    heard = sounds(load(paths))
    figures: dict[str, Any] = {"scratch": {"clips": len(paths)}}
    for form in ("{}", "the sound of {}"):
        figures["scratch"][form] = zero_shot(heard, texts([form.format(name) for name in classes]), labels)
    effects, gallery = stamps(packages / "tuxpaint-stamps-default")
    heard = sounds(load([stamp.sound for stamp in effects]))
    captions = sorted({stamp.caption for stamp in effects})
    of_caption = np.array([captions.index(stamp.caption) for stamp in effects])
    seen = pictures(gallery)
    of_picture = np.array([gallery.index(stamp.picture) for stamp in effects])
    own, small = seen[of_picture], np.arange(len(effects))
    written = texts(captions)
    figures["stamps"] = {
        "sounds": len(effects),
        "to_caption_hit_10": (hit_at(heard, written, of_caption), _share(len(captions))),
        "to_picture_hit_10": (hit_at(heard, own, small), _share(len(own))),
        "to_picture_of_all_hit_10": (hit_at(heard, seen, of_picture), _share(len(seen))),
    }
    return figures


def _share(items: int, k: int = 10) -> float:
    """Chance level in per cent."""
    return round(100 * min(1.0, k / items), 1)
