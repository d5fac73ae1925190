"""The recordings that the sound tower is judged by, with their labels: packages that no training sees.

- Scratch's library of effects (Debian `scratch`, MIT and CC BY-SA).
- Effects of Scorched 3D (`scorched3d-data`, GPL-2+) and recordings of GCompris (`gcompris-qt-data`, GPL-3+ and free
  others): animals, weather, vehicles, people.
- The effects of Tux Paint's stamps (`tuxpaint-stamps-default`, GPL-2), each of which has a picture and a caption.

Every effect of a kind that has a plain name is in; labels were given once, by the files' names.
"""

import dataclasses
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

SCRATCH = "usr/share/scratch/Media/Sounds"
STAMPS = "usr/share/tuxpaint/stamps"
SCORCHED = "usr/share/games/scorched3d/data/globalmods"
GCOMPRIS = "usr/share/gcompris-qt/rcc"
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
SCORCHED_LABELS = {
    "rain": ("rain",),
    "ocean waves": ("oceanwaves",),
    "thunder": ("thunder", "thunder2", "thunder3"),
    "birds singing": ("birds1", "birds2", *(f"birdchirp{n}" for n in range(1, 7))),
    "seagull": ("gull1", "gull2", "gull4", "gull5"),
    "frogs": ("frogs",),
    "bees": ("bees",),
    "wolf": ("wolf",),
    "rooster": ("rooster",),
    "dog": ("dog", "dog2", "dog3"),
    "sheep": ("sheep",),
    "cow": ("cows", "moo"),
    "car horn": tuple(f"carhorn{n}" for n in range(1, 7)),
    "siren": ("policecar", "firetruck"),
    "screaming": ("screaming", "scream1", "scream2", "scream3", "scream4"),
    "cheering": ("cheeringloop",),
    "airplane": ("f16_1", "f16_2", "f18_1", "f18_2", "t38", "jet", "cessna"),
    "helicopter": ("apache_1", "helicopter"),
    "splash": ("splash",),
    "machine gun": ("machinegun",),
    "camera": ("camera",),
    "explosion": ("xlarge",),
}
GCOMPRIS_LABELS = {
    "cat": ("cat",),
    "chicken": ("chickens",),
    "cow": ("cow",),
    "dog": ("dog", "LRBark_1_LA_cut", "LRBark_3_LA_cut"),
    "duck": ("duck",),
    "horse": ("horse",),
    "owl": ("owl",),
    "pig": ("pig",),
    "sheep": ("sheep",),
    "applause": ("LRApplauses_1_LA_cut",),
    "gong": ("LRBuddhist_gong_05_LA",),
    "door": ("LRDoor_Open_2_LA",),
    "frogs": ("LRFrogsInPondDuringStormLACut",),
    "heartbeat": ("LRHeart_beat_01_LA",),
    "rain": ("LRRain_in_garden_01_LA_cut",),
    "telephone ringing": ("LRRing_01_LA",),
    "car engine": ("LRStartAndStopCarEngine1LACut",),
    "train": ("LRTrain_slowing_down_01_LA_cut",),
}
GCOMPRIS_FILES = "explore_farm_animals.rcc", "memory-sound.rcc"

Labelled = tuple[list[Path | BytesIO], list[str]]


@dataclasses.dataclass(frozen=True)
class Stamp:
    """An effect of Tux Paint with the caption and the picture that it belongs to."""

    sound: Path
    caption: str
    picture: Path


def scratch_clips(packages: Path) -> Labelled:
    """The labelled effects of the unpacked package `scratch`, and the label of each."""
    folder = packages / "scratch" / SCRATCH
    pairs = [(folder / name, label) for label, names in SCRATCH_LABELS.items() for name in names]
    return [path for path, _ in pairs], [label for _, label in pairs]


def everyday_clips(packages: Path) -> Labelled:
    """The labelled recordings of the unpacked packages of Scorched 3D and GCompris, and the label of each."""
    found: dict[str, Path | BytesIO] = {
        path.stem: path
        for path in sorted((packages / "scorched3d-data" / SCORCHED).rglob("*.wav"), reverse=True)
    }
    clips = [(found[name], label) for label, names in SCORCHED_LABELS.items() for name in names]
    found = {}
    for file in GCOMPRIS_FILES:
        for path, content in qt_resources(packages / "gcompris-qt-data" / GCOMPRIS / file):
            if path.endswith(".ogg"):
                found[Path(path).stem] = BytesIO(content)
    clips += [(found[name], label) for label, names in GCOMPRIS_LABELS.items() for name in names]
    return [clip for clip, _ in clips], [label for _, label in clips]


def stamps(packages: Path) -> tuple[list[Stamp], list[Path]]:
    """The effects of Tux Paint's stamps, without letters and digits, and the pictures of all stamps with captions."""
    folder = packages / "tuxpaint-stamps-default" / STAMPS
    pictures = [path for path in sorted(folder.rglob("*.png")) if path.with_suffix(".txt").exists()]
    found = []
    for picture in pictures:
        sound = picture.with_suffix(".ogg")
        if sound.exists() and "symbols" not in picture.relative_to(folder).parts:
            caption = picture.with_suffix(".txt").read_text("utf-8").split("\n")[0].strip()
            if caption:
                found.append(Stamp(sound, caption, picture))
    return found, pictures


def qt_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a Qt resource file (``.rcc``, stored or zlib)."""
    content = path.read_bytes()
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
    if magic != b"qres":
        raise ValueError(f"{path}: no Qt resource file")
    size = 14 if version < 2 else 22

    def walk(row: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        at = tree + row * size
        where, flags, first, second = struct.unpack_from(">IHII", content, at)
        if row:
            (length,) = struct.unpack_from(">H", content, names + where)
            start = names + where + 6
            prefix += "/" + content[start : start + 2 * length].decode("utf-16-be")
        if flags & 2:  # a folder of `first` entries, from row `second` on
            for child in range(second, second + first):
                yield from walk(child, prefix)
            return
        start = data + second
        (length,) = struct.unpack_from(">I", content, start)
        stored = content[start + 4 : start + 4 + length]
        yield prefix, zlib.decompress(stored[4:]) if flags & 1 else stored

    yield from walk(0, "")
