"""Pictures with captions in many languages, of which no training sees any: what a model understands of each language.

Tux Paint's stamps (Debian ``tuxpaint-stamps-default``, GPL-2+) and emoji (names of npm ``emojibase-data``, MIT, from
Unicode's CLDR; pictures of npm ``emoji-datasource-google``, MIT and Apache-2.0).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import ConfigError

ENGLISH = "en"
LANGUAGES = ["zh", "de", "fr", "es", "ja", "ru", "ar", "pt", "ko", "uk"]
STAMP_LANGUAGES = {name: name for name in LANGUAGES}
STAMP_LANGUAGES["zh"] = "zh_CN"
"""Language -> what Tux Paint calls it. Of the last two, Korean and Ukrainian, training has no word at all."""
LEFT_OUT = (None, 2, 9)  # groups of emoji: single letters, skin tones, flags


@dataclass(frozen=True)
class Captioned:
    """One picture and its caption in each language that has one; English (``en``) always."""

    picture: Path
    captions: Mapping[str, str]


def read_stamps(folder: Path) -> list[Captioned]:
    """The stamps that are PNG pictures, one for each English caption, below Tux Paint's folder ``stamps``."""
    found: dict[str, Captioned] = {}
    for path in sorted(folder.rglob("*.txt")):
        first, *others = path.read_text("utf-8", errors="replace").splitlines() or [""]
        picture = path.with_suffix(".png")
        if not first.strip() or first.strip() in found or not picture.exists():
            continue
        lines = {name: text.strip() for name, _, text in (line.partition(".utf8=") for line in others)}
        captions = {language: lines[name] for language, name in STAMP_LANGUAGES.items() if lines.get(name)}
        found[first.strip()] = Captioned(picture, {ENGLISH: first.strip(), **captions})
    if not found:
        raise ConfigError(f"{folder} has no stamps; install Debian's tuxpaint-stamps-default or unpack it")
    return list(found.values())


def read_emoji(names: Path, pictures: Path) -> list[Captioned]:
    """The emoji but for letters, skin tones and flags; `names` and `pictures` are the two unpacked npm packages."""
    try:
        listed = json.loads((pictures / "emoji.json").read_bytes())
        english = json.loads((names / ENGLISH / "data.json").read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename} is missing; npm pack emojibase-data emoji-datasource-google and unpack both"
        ) from None
    files = {}
    for entry in listed:
        for code in (entry["unified"], entry["non_qualified"]):
            files[code] = pictures / "img" / "google" / "64" / entry["image"]
    labels: dict[str, dict[str, str]] = {}
    for language in STAMP_LANGUAGES:
        path = names / language / "data.json"
        if path.exists():  # Arabic has none
            labels[language] = {entry["hexcode"]: entry["label"] for entry in json.loads(path.read_bytes())}
    found = []
    for entry in english:
        picture = files.get(entry["hexcode"]) or files.get(f"{entry['hexcode']}-FE0F")
        if entry.get("group") not in LEFT_OUT and picture is not None and picture.exists():
            here = {name: of[entry["hexcode"]] for name, of in labels.items() if entry["hexcode"] in of}
            found.append(Captioned(picture, {ENGLISH: entry["label"], **here}))
    return found
