"""A bridge between two toy spaces whose relation is known, and the command that makes it."""

import dataclasses
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import mmsearch
from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.errors import ConfigError, MediaError, ModelError
from mmsearch.media import load_image, load_sound
from mmsearch.training.bridge import Bridged, Options, bridge_model, fit
from mmsearch.training.corpus import builtin_corpus, read_corpus
from mmsearch.types import Modality
from tests.e2e.conftest import in_process
from tests.extras.training.concepts import CORPUS, RATE, WORDS, Concepts, matrix, picture, shares, sound

Floats = NDArray[np.float32]

HEARD = Concepts("heard", 12, seed=1, bend=1.0, gap=1.5)
SEEN = Concepts("seen", 20, seed=7, bend=2.0, gap=1.0)
PAIRS = [" ".join(pair) for pair in combinations(WORDS, 2)]
GENERAL = Path(mmsearch.__file__).parent / "training" / "general"
QUICK = Options(epochs=30, batch=128)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return HEARD.save(tmp_path_factory.mktemp("audio") / "heard")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SEEN.save(tmp_path_factory.mktemp("target") / "seen", ("image", "text"))


@pytest.fixture(scope="module")
def bridged(audio: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Bridged:
    out = tmp_path_factory.mktemp("out") / "both"
    return bridge_model(str(audio), str(target), "toy texts", CORPUS, out, QUICK)


def unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def top_1(queries: Floats, items: Floats) -> float:
    return float(((queries @ items.T).argmax(1) == np.arange(len(queries))).mean())


def test_sounds_find_the_texts_and_pictures_of_a_space_that_they_never_met(bridged: Bridged) -> None:
    encoder = OnnxEncoder(bridged.out)
    heard = encoder.encode_audio([sound(pair) for pair in PAIRS])
    texts = encoder.encode_texts(PAIRS)
    pictures = encoder.encode_images([picture(pair) for pair in PAIRS])
    chance = 1 / len(PAIRS)
    assert top_1(heard, texts) > 15 * chance
    assert top_1(heard, pictures) > 15 * chance
    random = unit(
        HEARD.vectors("audio", np.concatenate([shares(pair) for pair in PAIRS])) @ matrix(12, 20, 3)
    )
    assert top_1(random, texts) < 5 * chance
    assert bridged.found[0] > 30 * bridged.found[1]  # of 58 held-out texts


def test_the_new_tower_is_the_old_one_centred_and_mapped(bridged: Bridged, audio: Path) -> None:
    kept = _learnt_from(bridged)
    ours, theirs = (
        space.vectors("text", np.concatenate([shares(text) for text in kept])) for space in (HEARD, SEEN)
    )
    weight = fit(ours, theirs, QUICK)
    recordings = sorted(GENERAL.glob("*.ogg"))
    old = OnnxEncoder(audio)
    mean = np.concatenate(
        [old.encode_audio([next(iter(load_sound(path, old.audio_window)))]) for path in recordings]
    ).mean(0)
    vectors = HEARD.vectors("audio", np.concatenate([shares(pair) for pair in PAIRS]))
    got = OnnxEncoder(bridged.out).encode_audio([sound(pair) for pair in PAIRS])
    np.testing.assert_allclose(got, unit((vectors - mean) @ weight), atol=2e-3)


def _learnt_from(bridged: Bridged) -> list[str]:
    rows = np.random.default_rng(QUICK.seed).permutation(len(CORPUS))
    assert bridged.texts == (len(CORPUS) - len(CORPUS) // 10, len(CORPUS) // 10)
    return [CORPUS[row] for row in np.sort(rows[bridged.texts[1] :])]


def test_the_map_of_related_spaces_is_the_one_that_relates_them() -> None:
    ours = unit(matrix(400, 6, 0))
    turned = np.linalg.qr(matrix(6, 6, 1))[0]
    weight = fit(ours, ours @ turned, QUICK)
    put, wanted = ours - ours.mean(0), (ours - ours.mean(0)) @ turned
    assert ((unit(put @ weight) * unit(wanted)).sum(1)).min() > 0.99
    assert top_1(unit(put @ weight), unit(wanted)) > 0.98


def test_the_same_seed_makes_the_same_map_and_another_seed_another() -> None:
    ours, theirs = unit(matrix(300, 6, 0)), unit(np.tanh(matrix(300, 6, 0) @ matrix(6, 9, 1)))
    one = fit(ours, theirs, QUICK)
    np.testing.assert_array_equal(one, fit(ours, theirs, QUICK))
    other = fit(ours, theirs, dataclasses.replace(QUICK, seed=1))
    assert np.abs(one - other).max() > 1e-4


def test_everything_of_the_target_stays_as_it_is(bridged: Bridged, target: Path) -> None:
    for name in ("image.onnx", "text.onnx", "tokenizer.json"):
        assert (bridged.out / name).read_bytes() == (target / name).read_bytes()
    old, new = (json.loads((folder / "model.json").read_text()) for folder in (target, bridged.out))
    assert new["space"] == old["space"]
    assert {name: new["towers"][name] for name in old["towers"]} == old["towers"]
    window = OnnxEncoder(bridged.out).audio_window
    assert (window.sample_rate, window.seconds, window.hop_seconds) == (RATE, 2.0, 1.0)
    with np.load(target / "canonical.npz") as before, np.load(bridged.out / "canonical.npz") as after:
        assert all((after[name] == before[name]).all() for name in before)
        assert set(after) - set(before) == {"sounds", "sound_vectors"}


def test_the_folder_is_whole_wherever_it_lies(bridged: Bridged, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(bridged.out, moved)
    assert verify(moved) == []
    given = [sound("owl")]
    np.testing.assert_array_equal(
        OnnxEncoder(moved).encode_audio(given), OnnxEncoder(bridged.out).encode_audio(given)
    )
    (moved / "audio.onnx").write_bytes((bridged.out / "text.onnx").read_bytes())
    assert any("audio.onnx" in problem for problem in verify(moved))


def test_one_list_of_all_kinds_has_means_and_spreads(bridged: Bridged, audio: Path, tmp_path: Path) -> None:
    encoder = OnnxEncoder(bridged.out)
    assert set(encoder.means) == {Modality.IMAGE, Modality.TEXT, Modality.AUDIO}
    assert not encoder.means[Modality.AUDIO].any()
    assert all(set(row) == set(encoder.spreads) for row in encoder.spreads.values())
    assert all(0 < spread <= 2 for row in encoder.spreads.values() for spread in row.values())
    # A spread of the general set counts by that which mini has there, whose true one is known.
    pictures = [load_image(path) for path in sorted(GENERAL.glob("*.jpg"))]
    mini = OnnxEncoder(BUILT_IN_MODELS / "mini")

    def measured(model: OnnxEncoder) -> float:
        seen = model.encode_images(pictures)
        return float(np.percentile((seen @ (seen - seen.mean(0)).T)[~np.eye(len(seen), dtype=bool)], 99))

    wanted = measured(encoder) * mini.spreads[Modality.IMAGE][Modality.IMAGE] / measured(mini)
    assert encoder.spreads[Modality.IMAGE][Modality.IMAGE] == pytest.approx(wanted, abs=1e-3)
    known = SEEN.save(tmp_path / "known")  # a target with a tower, means and spreads of its own
    fields = json.loads((known / "model.json").read_text())
    towers = ("image", "text", "audio")
    fields["scores"] = {
        "means": "means.npz",
        "spreads": {asked: dict.fromkeys(towers, 0.5) for asked in towers},
        "audio": {"nothing_below": 0.9},
        "image": {"nothing_below": 0.4},
    }
    fields["files"]["means.npz"] = {"sha256": "", "bytes": 0}
    np.savez(
        known / "means.npz", allow_pickle=False, **{name: np.full(20, 0.1, np.float32) for name in towers}
    )
    (known / "model.json").write_text(json.dumps(fields))
    bridge_model(str(audio), str(known), "toy texts", CORPUS, tmp_path / "new", QUICK)
    new = OnnxEncoder(tmp_path / "new")
    np.testing.assert_allclose(new.means[Modality.IMAGE], np.full(20, 0.1), atol=1e-6)
    assert not new.means[Modality.AUDIO].any()
    assert new.spreads[Modality.TEXT][Modality.IMAGE] == 0.5
    assert new.spreads[Modality.TEXT][Modality.AUDIO] != 0.5
    assert new.levels == {Modality.IMAGE: 0.4}
    assert verify(tmp_path / "new") == []
    assert (new.encode_audio([sound("saw")]) * SEEN.vectors("audio", shares("saw"))).sum() < 0.999


def test_what_the_target_indexed_is_found_by_sound(target: Path, audio: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join(CORPUS) + "\n")
    made = tmp_path / "made"
    ran = in_process("bridge", "--model", target, "--audio", audio, "--corpus", corpus, "--out", made)
    assert ran.code == 0, ran.err
    assert f"{made}: a model of the space seen-1" in ran.out
    assert in_process("models", "verify", made).code == 0
    assert "brought into its space by texts alone" in in_process("models", "show", made).out
    home, media = tmp_path / "home", tmp_path / "media"
    media.mkdir()
    for word in WORDS:
        picture(word).save(media / f"{word}.png")
        soundfile.write(tmp_path / f"{word}.wav", sound(word), RATE)
    assert in_process("index", media, "--home", home, "--model", target).code == 0
    asked = in_process("search", "--audio", tmp_path / "owl.wav", "--home", home, "--model", made, "--json")
    assert asked.code == 0, asked.err
    assert Path(asked.records()[0]["path"]).name == "owl.png"
    sounds = ["--home", home, "--collection", "sounds"]
    recordings = [tmp_path / f"{word}.wav" for word in WORDS]
    assert in_process("index", *recordings, *sounds, "--model", made).code == 0
    found = in_process("search", "train", *sounds, "--json").records()
    assert Path(found[0]["path"]).name == "train.wav"


def test_json_has_the_figures(target: Path, audio: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "texts.csv"
    corpus.write_text("text,note\n" + "\n".join(f"{text},x" for text in CORPUS) + "\n")
    given = ["bridge", "--model", target, "--audio", audio, "--corpus", corpus, "--out", tmp_path / "made"]
    ran = in_process(*given, "--json", "--seed", 3)
    assert ran.code == 0, ran.err
    (record,) = ran.records()
    assert record["texts"] == [526, 58]
    assert record["options"]["seed"] == 3
    assert record["general"]["text->audio"]["recall@1"]["chance"] == pytest.approx(1 / 11)
    assert "there is a model already" in in_process(*given).err


def test_what_is_missing_is_named_before_anything_is_encoded(
    target: Path, audio: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    deaf = HEARD.save(tmp_path / "deaf", ("image", "text"))
    mute = SEEN.save(tmp_path / "mute", ("image",))

    def refused(error: type[Exception], match: str, one: object, other: object) -> None:
        with pytest.raises(error, match=match):
            bridge_model(str(one), str(other), "toy texts", CORPUS, out, QUICK, progress=_fail)

    refused(ModelError, "deaf: has no audio tower to bridge from", deaf, target)
    refused(ModelError, "mute: has no text tower, and a bridge is learnt from texts", audio, mute)
    refused(ConfigError, "share the space heard-1: its sound tower needs no bridge", audio, audio)
    refused(ModelError, "nowhere: no such model", audio, "nowhere")
    assert not out.exists()
    assert "what is to hear?" in in_process("bridge", "--out", out).err
    assert "where to?" in in_process("bridge", "--model", target).err


def _fail(done: int, total: int) -> None:
    raise AssertionError("texts were encoded")


def test_a_corpus_is_read_from_lines_or_a_column(tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\ufeff" + "\n".join([*CORPUS[:150], "", CORPUS[0]]), "utf-8")
    assert read_corpus(str(lines)) == list(CORPUS[:150])
    table = tmp_path / "texts.jsonl"
    table.write_text("\n".join(json.dumps({"image": "1.jpg", "caption": text}) for text in CORPUS[:120]))
    assert read_corpus(str(table)) == list(CORPUS[:120])
    with pytest.raises(ConfigError, match="no such file"):
        read_corpus(str(tmp_path / "none.txt"))
    lines.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="2 distinct texts are too few"):
        read_corpus(str(lines))
    lines.write_bytes(b"\xff\xfe")
    with pytest.raises(MediaError, match="not UTF-8"):
        read_corpus(str(lines))


def test_the_builtin_corpus_is_large_distinct_and_always_the_same() -> None:
    texts = builtin_corpus()
    assert len(texts) == len(set(texts)) > 6_000
    assert {"the sound of dog barking", "a photo of a goldfish", "the sound of rooster"} <= set(texts)
    assert max(map(len, texts)) < 200
    assert texts == builtin_corpus()
