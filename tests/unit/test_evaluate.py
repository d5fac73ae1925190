"""Evaluation with the toy encoder of colours, where every answer is plain, and with encoders that know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from mmsearch.errors import MediaError, ModelError
from mmsearch.evaluate import Confusion, Result, compare, evaluate, retrieve
from mmsearch.manifests import read_manifest
from mmsearch.types import Image, Modality, Vectors
from tests.toy import COLOURS, RATE, TONES, ToyEncoder, tone

NAMES = ("red", "green", "blue", "white", "black")


class Blank(ToyEncoder):
    """One vector for everything."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return np.full((len(texts), 4), 0.5, np.float32)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        return np.full((len(images), 4), 0.5, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        PIL.Image.new("RGB", (8, 8), COLOURS[name]).save(tmp_path / f"{name}.png")
    return tmp_path


def results(encoder: ToyEncoder, folder: Path, text: str) -> dict[str, Result]:
    path = folder / "asked.csv"
    path.write_text(text)
    return {result.name: result for result in evaluate(encoder, read_manifest(path)).results}


def values(result: Result) -> dict[str, float]:
    return {name: measure.value for name, measure in result.measures.items()}


CAPTIONS = "image,text\n" + "".join(f"{name}.png,{name}\n" for name in ("red", "green", "blue", "white"))


def test_a_model_that_knows_its_colours_finds_each_first(folder: Path) -> None:
    found = results(ToyEncoder(), folder, CAPTIONS)
    for direction in ("text->image", "image->text"):
        assert values(found[direction]) == {"recall@1": 1, "median_rank": 1, "map": 1, "ndcg@10": 1}
        assert found[direction].worst == []
        assert len(found[direction].slowest) == 4
        assert all(query.encode_ms > 0 for query in found[direction].slowest)


def test_a_swapped_pair_is_reported_as_the_worst(folder: Path) -> None:
    swapped = CAPTIONS.replace("red.png,red", "red.png,green").replace("green.png,green", "green.png,red")
    result = results(ToyEncoder(), folder, swapped)["text->image"]
    assert values(result)["recall@1"] == 0.5
    wrong = {(query.query, Path(query.wanted).name, Path(query.found).name) for query in result.worst}
    assert wrong == {("green", "red.png", "green.png"), ("red", "green.png", "red.png")}


def test_a_model_that_tells_nothing_apart_is_at_chance(folder: Path) -> None:
    gallery = np.full((200, 4), 0.5, np.float32)
    found = retrieve(gallery, gallery, [np.array([row]) for row in range(200)])
    assert abs(float(np.median(found.first_ranks)) - 100) < 20
    blank = results(Blank(), folder, CAPTIONS)["text->image"]
    assert values(blank)["recall@1"] < 1


def test_classes_are_recognised_and_confused_by_name(folder: Path) -> None:
    PIL.Image.new("RGB", (8, 8), (250, 0, 0)).save(folder / "scarlet.png")
    text = "image,label\nred.png,red\ngreen.png,green\nblue.png,blue\nscarlet.png,blue\n"
    found = results(ToyEncoder(), folder, text)
    accuracy = found["zero-shot image"]
    assert values(accuracy) == {"accuracy": 0.75, "f1_macro": pytest.approx((2 / 3 + 1 + 2 / 3) / 3)}
    assert accuracy.measures["accuracy"].chance == pytest.approx(1 / 3)
    assert list(accuracy.confusions) == [Confusion("blue", 0.5, 2, "red", 1)]
    assert values(found["label->image"])["recall@1"] == 1


def test_triples_count_the_positive_above_all_negatives(folder: Path) -> None:
    path = folder / "asked.jsonl"
    path.write_text(
        '{"query": "red", "positive": "red.png", "negative": ["green.png", "blue.png"]}\n'
        '{"query": "green", "positive": "red.png", "negative": "green.png"}\n'
    )
    (result,) = evaluate(ToyEncoder(), read_manifest(path)).results
    assert values(result) == {"accuracy": 0.5}
    assert result.measures["accuracy"].chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    (wrong,) = result.worst
    assert (wrong.query, wrong.rank, Path(wrong.found).name) == ("green", 2, "green.png")


def test_composed_queries_add_and_take_away(folder: Path) -> None:
    for name, colour in (("yellow", (255, 255, 0)), ("purple", (255, 0, 255))):
        PIL.Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    text = "query,target,add,subtract\nred.png,yellow.png,green,\nyellow.png,green.png,,red\n"
    result = results(ToyEncoder(), folder, text + "purple.png,blue.png,,red\n")["query->target"]
    assert values(result)["recall@1"] == 1
    assert result.slowest[0].query.count(".png") == 1


def test_intervals_hold_the_value_and_come_again_with_the_seed(folder: Path) -> None:
    swapped = CAPTIONS.replace("red.png,red", "red.png,green").replace("green.png,green", "green.png,red")
    result = results(ToyEncoder(), folder, swapped)["text->image"]
    figures = result.figures(seed=1)
    assert figures == result.figures(seed=1)
    assert figures["recall@1"].low <= 0.5 <= figures["recall@1"].high
    assert figures["recall@1"].low < figures["recall@1"].high


def test_two_models_side_by_side(folder: Path) -> None:
    good = results(ToyEncoder(), folder, CAPTIONS)["text->image"]
    blank = results(Blank(), folder, CAPTIONS)["text->image"]
    difference = compare(blank, good)["recall@1"]
    assert difference.value == values(good)["recall@1"] - values(blank)["recall@1"] > 0
    assert difference.low <= difference.value <= difference.high
    same = compare(good, good)["recall@1"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_unreadable_files_are_named_with_manifest_and_row(folder: Path) -> None:
    (folder / "red.png").write_bytes(b"no picture")
    (folder / "blue.png").write_bytes(b"")
    with pytest.raises(MediaError) as caught:
        results(ToyEncoder(), folder, CAPTIONS)
    head, first, second = str(caught.value).splitlines()
    assert head == f"{folder / 'asked.csv'}: 2 problems"
    assert first.startswith(f"  line 2: {folder / 'red.png'}: is not a picture")
    assert second == f"  line 4: {folder / 'blue.png'}: is empty (zero bytes)"


def test_sounds_meet_pictures_and_texts(folder: Path) -> None:
    for name in TONES:
        soundfile.write(folder / f"{name}.wav", tone(name), RATE)
    path = folder / "asked.csv"
    path.write_text("audio,image,text\n" + "".join(f"{name}.wav,{name}.png,{name}\n" for name in TONES))
    found = {result.name: values(result) for result in evaluate(ToyEncoder(), read_manifest(path)).results}
    assert len(found) == 6
    assert all(measured["recall@1"] == 1 for measured in found.values())


def test_directions_without_a_tower_are_left_out_and_said(folder: Path) -> None:
    encoder = ToyEncoder()
    encoder.modalities = frozenset({Modality.IMAGE, Modality.TEXT})
    (folder / "a.wav").write_bytes(b"RIFF")
    path = folder / "asked.jsonl"
    path.write_text('{"image": "red.png", "audio": "a.wav", "text": "red"}\n')
    found = evaluate(encoder, read_manifest(path))
    assert {result.name for result in found.results} == {"text->image", "image->text"}
    assert "audio->image is left out: the model has no audio tower" in found.notes
    path.write_text('{"image": "red.png", "audio": "a.wav"}\n')
    with pytest.raises(ModelError, match="no audio tower"):
        evaluate(encoder, read_manifest(path))


def test_progress_counts_each_media_once(folder: Path) -> None:
    path = folder / "asked.csv"
    path.write_text(CAPTIONS)
    seen: list[tuple[int, int]] = []
    evaluate(ToyEncoder(), read_manifest(path), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
