"""The readers of dictionaries and of captions in many languages, on files written here in their formats."""

import gzip
import json
import re
from pathlib import Path

import PIL.Image
import pytest

from mmsearch.errors import ConfigError
from mmsearch.training.languages import read_emoji, read_stamps
from mmsearch.training.translations import (
    Dictionary,
    noun_kinds,
    picturable_words,
    read_cedict,
    read_freedict,
)

FORWARD = """00-database-info
    This dictionary /was made/ here

dog /dɒɡ/ <n>
chien <masc>, clébard
grass /ɡɹɑːs/
1. herbe 2. gazon
jump /dʒʌmp/
 [sport] see: {leap}
Red /ɹɛd/ <adj>
rouge (couleur), vermeil, carmin
dog /dɒɡ/ <v>
suivre
"""
BACKWARD = """Fahrrad /fˈɑːrɑːt/ <neut, n, sg>
bicycle <n>, bike <n> [coll.]
Rad /rˈɑːt/ <neut, n, sg>
 [ugs.] bicycle <n>
   Synonym: {Velo}
Hund /hˈʊnt/ <masc, n, sg>
dog <n>
"""


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"freedict-{name}.dict.dz").write_bytes(gzip.compress(text.encode()))


def test_entries_give_their_first_translations_without_remarks(tmp_path: Path) -> None:
    write(tmp_path, "eng-fra", FORWARD)
    assert read_freedict(tmp_path, "eng-fra") == {
        "dog": ("chien", "clébard"),
        "grass": ("herbe",),
        "red": ("rouge", "vermeil"),
    }


def test_a_dictionary_into_english_is_read_backwards(tmp_path: Path) -> None:
    write(tmp_path, "deu-eng", BACKWARD)
    assert read_freedict(tmp_path, "deu-eng") == {"bicycle": ("Rad", "Fahrrad"), "dog": ("Hund",)}


def test_a_missing_dictionary_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dict-freedict-eng-rus"):
        read_freedict(tmp_path, "eng-rus")


def test_cc_cedict_knows_everyday_things() -> None:
    words = read_cedict()
    assert len(words) > 50_000
    assert "彩虹" in words["rainbow"]
    assert "长颈鹿" in words["giraffe"]


def wordnet(folder: Path) -> None:
    """Two senses of bank, the first a natural object; the formats of wndb(5WN)."""
    (folder / "data.noun").write_text(
        "  1 licence\n"
        "00000001 17 n 01 bank 0 000 | sloping land\n"
        "00000002 14 n 01 bank 0 000 | a company\n"
        "00000003 05 n 02 sea_lion 0 Otaria 0 000 | an animal\n"
        "00000004 18 n 01 judge 0 000 | a person\n"
    )
    (folder / "index.noun").write_text(
        "  1 licence\n"
        "bank n 2 2 @ ~ 2 1 00000001 00000002\n"
        "judge n 1 0 1 0 00000004\n"
        "sea_lion n 1 1 @ 1 0 00000003\n"
    )


def test_the_kind_of_a_noun_is_that_of_its_first_sense(tmp_path: Path) -> None:
    wordnet(tmp_path)
    assert noun_kinds(tmp_path) == {"bank": "17", "judge": "18", "sea lion": "05"}


def test_without_wordnet_the_message_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wordnet-base"):
        noun_kinds(tmp_path)


def test_things_need_three_dictionaries_and_other_words_most() -> None:
    kinds = {"sea lion": "05", "bank": "17", "judge": "18", "law": "10"}
    everywhere: Dictionary = {"judge": ("x",), "law": ("x",), "red": ("x",), "green": ("x",)}
    books = {str(i): everywhere | ({"bank": ("x",)} if i < 3 else {}) for i in range(5)}
    books["0"]["sea lion"] = ("x",)
    assert picturable_words(books, kinds, ["A red bus."], 9) == ["judge", "red", "bank"]
    assert picturable_words(books, kinds, ["A red bus."], 1) == ["judge"]


def stamp(folder: Path, name: str, text: str, picture: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(text, "utf-8")
    if picture:
        PIL.Image.new("RGB", (4, 4)).save(folder / f"{name}.png")


def test_stamps_have_one_picture_for_each_english_caption(tmp_path: Path) -> None:
    stamp(tmp_path / "animals", "yak", "A yak.\nde.utf8=Ein Yak.\nzh_CN.utf8=牦牛。\nxx.utf8=?\nja.utf8=\n")
    stamp(tmp_path / "animals", "yak2", "A yak.\n")
    stamp(tmp_path, "drawn", "A circle.\nde.utf8=Ein Kreis.\n", picture=False)
    stamp(tmp_path, "empty", "")
    (found,) = read_stamps(tmp_path)
    assert found.picture == tmp_path / "animals" / "yak.png"
    assert found.captions == {"en": "A yak.", "de": "Ein Yak.", "zh": "牦牛。"}


def test_a_folder_without_stamps_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tuxpaint-stamps-default"):
        read_stamps(tmp_path)


def test_emoji_are_pictures_with_names_but_no_flags(tmp_path: Path) -> None:
    names, pictures = tmp_path / "names", tmp_path / "pictures"
    (pictures / "img" / "google" / "64").mkdir(parents=True)
    for code in ("1f415", "1f1fb", "2764-fe0f"):
        PIL.Image.new("RGB", (4, 4)).save(pictures / "img" / "google" / "64" / f"{code}.png")
    codes = {"1F415": (3, "dog"), "1F1FB": (9, "flag"), "2764": (0, "red heart"), "1F431": (3, "cat face")}
    listed = [
        {"unified": code, "non_qualified": None, "image": f"{code.lower()}.png"}
        for code in ("1F415", "1F1FB", "2764-FE0F", "1F431")
    ]
    (pictures / "emoji.json").write_text(json.dumps(listed))
    for language, labels in {"en": codes, "de": {"1F415": (3, "Hund")}}.items():
        (names / language).mkdir(parents=True)
        entries = [
            {"hexcode": code, "group": group, "label": label} for code, (group, label) in labels.items()
        ]
        (names / language / "data.json").write_text(json.dumps(entries))
    found = {re.sub(r"\W.*", "", item.picture.name): item.captions for item in read_emoji(names, pictures)}
    assert found == {"1f415": {"en": "dog", "de": "Hund"}, "2764": {"en": "red heart"}}


def test_missing_emoji_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="npm pack"):
        read_emoji(tmp_path, tmp_path)
