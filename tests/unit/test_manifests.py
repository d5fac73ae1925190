"""Manifests: what the columns ask, and every wrong row named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mmsearch.errors import ConfigError, MediaError
from mmsearch.manifests import Choice, Classes, Manifest, Retrieval, Trial, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        PIL.Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF")
    return tmp_path


def read(folder: Path, text: str, name: str = "asked.csv", split: str | None = None) -> dict[str, Trial]:
    path = folder / name
    path.write_text(text)
    manifest: Manifest = read_manifest(path, split=split)
    return {trial.name: trial for trial in manifest.trials}


def retrieval(trial: Trial) -> Retrieval:
    assert isinstance(trial, Retrieval)
    return trial


CAPTIONS = "image,caption\na.png,one\na.png,two\nb.png,three\na.png,four\nc.png,three\n"


def test_rows_of_pictures_and_captions_ask_in_three_directions(folder: Path) -> None:
    trials = read(folder, CAPTIONS)
    assert list(trials) == ["text->image", "image->text", "caption->caption"]
    words = retrieval(trials["text->image"])
    assert [str(terms[0][0]) for terms in words.queries] == ["one", "two", "three", "four", "three"]
    assert [str(media) for media in words.gallery] == [str(folder / f"{name}.png") for name in "abc"]
    assert [found.tolist() for found in words.relevant] == [[0], [0], [1], [0], [2]]
    assert words.clusters.tolist() == [0, 0, 1, 0, 2]
    pictures = retrieval(trials["image->text"])
    assert [found.tolist() for found in pictures.relevant] == [[0, 1, 3], [2], [4]]
    captions = retrieval(trials["caption->caption"])
    assert [str(terms[0][0]) for terms in captions.queries] == ["one"]
    assert [str(media) for media in captions.gallery] == ["two", "three", "four", "three"]
    assert captions.relevant[0].tolist() == [0, 2]


def test_sounds_pictures_and_texts_of_a_row_ask_in_all_six_directions(folder: Path) -> None:
    rows = [
        {"image": "a.png", "audio": ["a.wav", "b.wav"], "text": "one"},
        {"audio": "c.wav", "text": "two"},
    ]
    trials = read(folder, "".join(json.dumps(row) + "\n" for row in rows), "asked.jsonl")
    assert set(trials) == {
        *("text->image", "image->text", "text->audio", "audio->text", "audio->image", "image->audio")
    }
    assert [found.tolist() for found in retrieval(trials["text->audio"]).relevant] == [[0, 1], [2]]
    assert [found.tolist() for found in retrieval(trials["audio->image"]).relevant] == [[0], [0]]


def test_labels_ask_for_classes_and_as_queries(folder: Path) -> None:
    path = folder / "asked.csv"
    path.write_text("image,label\na.png,dog\nb.png,cat\nc.png,dog\n")
    classes, labels = read_manifest(path, prompts=["a {}", "{} here"]).trials
    assert isinstance(classes, Classes)
    assert classes.classes == ["cat", "dog"]
    assert classes.truth.tolist() == [1, 0, 1]
    assert [str(media) for media, _ in classes.queries[1]] == ["a dog", "dog here"]
    assert [found.tolist() for found in retrieval(labels).relevant] == [[1], [0, 2]]


def test_triples_tell_files_from_texts_by_their_names(folder: Path) -> None:
    (trial,) = read(folder, "query,positive,negative\nred car,a.png,b.png\na.wav,rooster.,c.png\n").values()
    assert isinstance(trial, Choice)
    assert [media.modality.value for media in trial.queries] == ["text", "audio"]
    assert [str(media) for media in trial.candidates[1]] == ["rooster.", str(folder / "c.png")]


def test_composed_queries_leave_out_the_picture_they_start_from(folder: Path) -> None:
    (trial,) = read(
        folder, "query,target,add,subtract\na.png,b.png,at night,people\nb.png,c.png,,\n"
    ).values()
    found = retrieval(trial)
    assert [(str(media), weight) for media, weight in found.queries[0]] == [
        (str(folder / "a.png"), 1.0),
        ("at night", 1.0),
        ("people", -1.0),
    ]
    assert [str(media) for media in found.gallery] == [str(folder / f"{name}.png") for name in "bca"]
    assert [rows.tolist() for rows in found.relevant] == [[0], [1]]
    assert found.excluded.tolist() == [2, 0]


def test_a_split_takes_its_rows_only(folder: Path) -> None:
    text = "image,text,split\na.png,one,train\nb.png,two,test\nc.png,three,test\n"
    assert len(retrieval(read(folder, text, split="test")["text->image"]).gallery) == 2
    with pytest.raises(ConfigError, match="no row has the split 'dev'; there are test, train"):
        read(folder, text, split="dev")


def test_every_wrong_row_is_named(folder: Path) -> None:
    text = "image,text,label\na.png,one,x\nno.png,two,x\nb.png,,\nmissing.png,three,y\n"
    with pytest.raises(MediaError) as caught:
        read(folder, text)
    assert str(caught.value).splitlines() == [
        f"{folder / 'asked.csv'}: 3 problems",
        f"  line 3: image {folder / 'no.png'}: no such file",
        "  line 4: only image is given, and nothing that belongs to it",
        f"  line 5: image {folder / 'missing.png'}: no such file",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\na.png,x\nb.png,x\n", "column label: every image has the same, 'x'"),
        ("query,positive,negative\nred,a.png,\n", "line 2: negative is empty"),
        ("query,positive,negative\nred,,a.png\n", "line 2: positive is empty"),
        ("query,target,add\n,a.png,red\n", "line 2: target has no query"),
    ],
)
def test_rows_that_ask_nothing_are_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read(folder, text)


def test_columns_that_ask_nothing_are_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"its columns \(file, name\) ask nothing"):
        read(folder, "name,file\na,b\n")


def test_a_prompt_needs_a_place_for_the_label(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \{\} where"):
        read_manifest(folder / "asked.csv", prompts=["a photo"])


def test_relevant_rows_are_sorted_whole_numbers(folder: Path) -> None:
    for trial in read(folder, CAPTIONS).values():
        for rows in retrieval(trial).relevant:
            assert rows.dtype == np.int64
            assert (np.diff(rows) > 0).all()
