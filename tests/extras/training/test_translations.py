"""The readers of dictionaries and of captions in many languages, on files written here in their formats."""

import gzip
import json
import re
from pathlib import Path

import PIL.Image
import pytest

from mmsearch.errors import ConfigError
from mmsearch.training.dictionaries import (
    GENDERS,
    Book,
    Dictionary,
    measured,
    read_cedict,
    read_ding,
    read_freedict,
    through,
)
from mmsearch.training.languages import read_emoji, read_stamps
from mmsearch.training.phrases import described, glossed
from mmsearch.training.translations import caption, english_caption, noun_kinds, picturable_words

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
BACKWARD = """ [ichi1]  [news1]  犬 /inu/, 狗 /inu/,  [ichi1] いぬ /inu/
1. (noun (common) (futsuumeishi))
dog (Canis (lupus) familiaris)
2. snoop (i.e. a detective, a spy, etc.)
家鴨 /ahiru/, あひる /ahiru/
(noun (common) (futsuumeishi))

         Note: word usually written using kana alonedomestic duck
走る /hashiru/
(Godan verb with `ru' ending)
to run, to race
"""
DING = """# a comment :: is no entry
Ente {f} [ornith.] | Enten {pl} | junge Ente {f} :: duck | ducks | duckling
Hund {m} [zool.] | Hunde {pl} :: dog; dawg (used to represent speech) | dogs
Ungleich {n} | Paar {n} :: uneven
springen {vi} [sport] | Sie sprang gestern sehr hoch. :: to jump /j./ | She jumped very high yesterday.
Haus {n}; Gebäude {n} :: house
"""


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"freedict-{name}.dict.dz").write_bytes(gzip.compress(text.encode()))


def test_entries_give_their_first_translations_without_remarks(tmp_path: Path) -> None:
    write(tmp_path, "eng-fra", FORWARD)
    assert read_freedict(tmp_path, "eng-fra").words == {
        "dog": ("chien", "clébard"),
        "grass": ("herbe",),
        "red": ("rouge", "vermeil"),
    }


def test_a_dictionary_into_english_is_read_backwards_in_all_spellings(tmp_path: Path) -> None:
    write(tmp_path, "jpn-eng", BACKWARD)
    words = read_freedict(tmp_path, "jpn-eng").words
    assert set(words["dog"]) == {"犬", "狗", "いぬ"}
    assert words["dog"][0] == "犬"  # the commonest
    assert set(words["domestic duck"]) == {"家鴨", "あひる"}
    assert words["run"] == words["race"] == ("走る",)
    assert "snoop" in words


def test_a_missing_dictionary_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dict-freedict-eng-rus"):
        read_freedict(tmp_path, "eng-rus")
    with pytest.raises(ConfigError, match="trans-de-en"):
        read_ding(tmp_path / "de-en")


def test_ding_gives_words_with_their_genders_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "de-en"
    path.write_text(DING, "utf-8")
    book = read_ding(path)
    assert book.words == {
        "duck": ("Ente",),
        "ducks": ("Enten",),
        "duckling": ("junge Ente",),
        "dog": ("Hund",),
        "dawg": ("Hund",),
        "dogs": ("Hunde",),
        "jump": ("springen",),
        "house": ("Haus", "Gebäude"),
        "uneven": ("Ungleich",),  # the groups that follow are out of step
    }
    found = [caption("de", book, word, 0) for word in ("Ente", "Hund", "Enten", "Haus", "unbekannt")]
    assert found == ["Eine Ente.", "Ein Hund.", "Enten.", "Ein Haus.", "unbekannt."]
    assert book.phrases == [("She jumped very high yesterday.", "Sie sprang gestern sehr hoch.")]


def test_words_are_also_found_by_way_of_a_third_language() -> None:
    german = Book({"dog": ("Hund",)}, {"Hund": GENDERS["m"]}, [("a", "b")])
    finnish = Book({"dog": ("koira", "Hurtta"), "toad": ("rupikonna",), "void": ("tyhjä",)})
    backwards = Book({"koira": ("Hund",), "hurtta": ("Jagdhund", "Hund"), "rupikonna": ("Kröte",)})
    found = through(german, finnish, backwards)
    assert found.words == {"dog": ("Hund", "Jagdhund"), "toad": ("Kröte",)}
    assert (found.frames, found.phrases) == (german.frames, german.phrases)


def test_cc_cedict_knows_everyday_things_and_how_they_are_counted() -> None:
    book = read_cedict()
    assert len(book.words) > 50_000
    assert "彩虹" in book.words["rainbow"]
    assert "长颈鹿" in book.words["giraffe"]
    assert book.words["dog"][0] == "狗"
    assert [caption("zh", book, "狗", turn) for turn in (0, 1)] == ["一只狗。", "狗。"]


def books() -> dict[str, Book]:
    german = Book({"duck": ("Ente",), "dog": ("Hund",), "run": ("laufen",), "pony": ("Pony",)})
    german.frames["Ente"] = GENDERS["f"]
    german.frames["Hund"] = GENDERS["m"]
    chinese = Book({"duck": ("鸭子",), "dog": ("狗",)}, {"鸭子": measured("只")})
    return {"de": german, "zh": chinese}


def test_things_are_described_with_endings_and_measure_words() -> None:
    found = set(described(books(), ["duck", "dog", "pony", "zebra"], 2000))
    assert ("A red duck.", "de", "Eine rote Ente.") in found
    assert ("An old dog.", "de", "Ein alter Hund.") in found
    assert ("A red duck.", "zh", "一只红色的鸭子。") in found
    assert ("A small dog.", "zh", "一个小狗。") in found
    assert not any("pony" in english or "zebra" in english for english, _, _ in found)


def test_captions_are_glossed_word_by_word_if_most_words_are_known() -> None:
    captions = ["A brown dog is running with two ducks .", "Zebras graze ."]
    book = Book(books()["de"].words | {"two": ("zwei",)})
    assert [phrase.text for phrase in glossed(book, "de", captions)] == [
        "ein braun Hund ist laufen mit zwei Ente"
    ]
    (phrase,) = glossed(books()["zh"], "zh", ["The dog and the ducks ."])
    assert phrase == ("The dog and the ducks .", "zh", "狗和鸭子")


def test_an_english_thing_has_its_article() -> None:
    assert [english_caption(word) for word in ("apple", "dog")] == ["An apple.", "A dog."]


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


def test_things_need_german_chinese_or_three_others_and_other_words_most() -> None:
    kinds = {"sea lion": "05", "bank": "17", "judge": "18", "law": "10", "walrus": "05", "xyzzy": "05"}
    everywhere: Dictionary = {"judge": ("x",), "law": ("x",), "red": ("x",)}
    books = {str(i): Book(everywhere | ({"bank": ("x",)} if i < 3 else {})) for i in range(5)}
    books["0"].words["sea lion"] = ("x",)
    books["de"] = Book({"walrus": ("Walross",), "xyzzy": ("x",)})
    captions = ["A red bus.", "A red car."]
    assert picturable_words(books, kinds, captions) == ["judge", "red", "bank", "walrus"]


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
