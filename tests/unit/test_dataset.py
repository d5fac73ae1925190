"""Training pairs: what becomes an item, who is on which side, and every wrong row named. Without torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import ConfigError, MediaError
from mmsearch.tables import read_table
from mmsearch.training.dataset import Dataset, make_dataset
from mmsearch.types import Modality

COLUMNS = ["image", "audio", "text", "weight", "split", "group"]
PHOTOS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files of different bytes and a copy of each; the contents of files do not matter here."""
    made = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        for name in (f"{number}.jpg", f"copy-{number}.jpg", f"{number}.wav"):
            (made / name).write_bytes(f"{number} {name[-3:]}".encode())
    return made


def dataset(folder: Path, rows: Sequence[dict[str, str]], seed: int = 0) -> Dataset:
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return make_dataset(path, read_table(path), root=folder, seed=seed)


def plain(count: int = PHOTOS, **more: str) -> list[dict[str, str]]:
    return [{"image": f"{n}.jpg", "text": f"text {n}", **more} for n in range(count)]


rows = st.lists(
    st.fixed_dictionaries(
        {
            "image": st.sampled_from([f"{copy}{n}.jpg" for n in range(PHOTOS) for copy in ("", "copy-")]),
            "text": st.sampled_from(["a", "b", "c", "d", "e"]),
            "group": st.sampled_from(["", "", "", "one", "two"]),
        }
    ),
    min_size=3,
    max_size=40,
)


@given(rows=rows, seed=st.integers(0, 5))
def test_no_photo_copy_or_group_is_on_both_sides(folder: Path, rows: list[dict[str, str]], seed: int) -> None:
    try:
        found = dataset(folder, rows, seed)
    except (ConfigError, MediaError):
        return  # too few groups, or one column is the same in every row
    sides = []
    for items in (found.train, found.validation):
        photos = {Path(media.content).name for item in items for media in item.media[Modality.IMAGE]}
        numbers = {name.removeprefix("copy-") for name in photos}
        sides.append(numbers)
        assert len(photos) == len(numbers) == len(items)  # a copy is the same photo
    assert not sides[0] & sides[1]
    for group in ("one", "two"):
        members = {row["image"].removeprefix("copy-") for row in rows if row["group"] == group}
        assert not (members & sides[0] and members & sides[1])
    pairs = {(row["image"].removeprefix("copy-"), row["text"]) for row in rows}
    kept = {
        (Path(item.media[Modality.IMAGE][0].content).name.removeprefix("copy-"), str(text))
        for item in (*found.train, *found.validation)
        for text in item.media[Modality.TEXT]
    }
    assert kept == pairs


def test_the_draw_of_validation_groups_follows_the_seed(folder: Path) -> None:
    def drawn(seed: int) -> set[str]:
        return {item.place for item in dataset(folder, plain(PHOTOS) * 1, seed).validation}

    with pytest.raises(ConfigError, match="11 items to train on and 1 to validate on are too few"):
        drawn(0)
    rows = [{"image": f"{n}.jpg", "audio": f"{n}.wav", "text": f"text {n}"} for n in range(PHOTOS)]
    rows += [{"audio": f"{n}.wav", "text": f"sound {n}"} for n in range(PHOTOS)]
    first = {item.place for item in dataset(folder, rows, 1).validation}
    assert first == {item.place for item in dataset(folder, rows, 1).validation}
    assert any(
        first != {item.place for item in dataset(folder, rows, seed).validation} for seed in range(2, 9)
    )


def test_a_column_split_is_obeyed_and_tests_are_left_out(folder: Path) -> None:
    splits = ["train"] * 6 + ["VAL", "dev", "validation"] + ["test"] * 2 + [""]
    rows = [{**row, "split": split} for row, split in zip(plain(), splits, strict=True)]
    found = dataset(folder, rows)
    assert [item.place for item in found.validation] == ["line 8", "line 9", "line 10"]
    assert len(found.train) == 7
    assert (found.rows, found.left_out) == (12, 2)
    assert found.count(Modality.TEXT) == (7, 3)
    assert found.modalities == (Modality.IMAGE, Modality.TEXT)


def test_rows_of_one_photo_are_one_item_with_their_mean_weight(folder: Path) -> None:
    rows = plain(split="train")
    rows += [{"image": "copy-3.jpg", "text": "more", "weight": "2"}, *plain(2, split="val")]
    rows[-2]["image"], rows[-1]["image"] = "10.jpg", "11.jpg"
    rows[10]["split"] = rows[11]["split"] = "val"
    found = dataset(folder, rows)
    (item,) = [item for item in found.train if item.place == "line 5"]
    assert [str(text) for text in item.media[Modality.TEXT]] == ["text 3", "more"]
    assert len(item.media[Modality.IMAGE]) == 1
    assert item.weight == 1.5


def test_every_wrong_row_is_named_before_anything_else(folder: Path) -> None:
    rows = [
        {"image": "0.jpg", "text": "fine", "split": "train"},
        {"image": "no.jpg", "text": "lost"},
        {"image": "1.jpg", "text": " "},
        {"image": "2.jpg", "text": "x", "weight": "heavy"},
        {"image": "2.jpg", "text": "x", "weight": "-1"},
        {"image": "2.jpg", "text": "x", "split": "later"},
        {"image": "copy-0.jpg", "text": "leaks", "split": "val"},
        {"weight": "1"},
    ]
    with pytest.raises(MediaError) as caught:
        dataset(folder, rows)
    assert str(caught.value).splitlines()[1:] == [
        f"  line 3: image {folder / 'no.jpg'}: no such file, or it cannot be read",
        "  line 4: only image is given, and nothing that belongs to it",
        "  line 5: weight is 'heavy', not a number of 0 or more",
        "  line 6: weight is '-1', not a number of 0 or more",
        "  line 7: split is 'later', not one of train, val and test",
        "  line 9: has no image, audio or text",
        "  line 8: is in val, and the same photo, sound or group is in train (line 2)",
    ]


def test_a_group_on_two_sides_leaks(folder: Path) -> None:
    rows = plain()
    rows[0] |= {"group": "party", "split": "train"}
    rows[5] |= {"group": "party", "split": "val"}
    with pytest.raises(MediaError, match="line 7: is in val, and the same photo, sound or group is in train"):
        dataset(folder, rows)


def test_one_class_only_is_refused(folder: Path) -> None:
    rows = [{**row, "text": "dress"} for row in plain()]
    with pytest.raises(MediaError, match="column text: is the same in every row, 'dress'"):
        dataset(folder, rows)
