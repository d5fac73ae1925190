"""CLAP with random weights: its graph hears what transformers hears, and its bridge is a model folder."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.errors import ModelError
from mmsearch.training.bridge import Options, bridge_model
from mmsearch.training.clap import Clap, FrontEnd
from mmsearch.training.clap_files import find_clap
from mmsearch.training.export import session
from tests.e2e.conftest import in_process, process
from tests.extras.training.concepts import CORPUS, WORDS, Concepts

pytest.importorskip("transformers", reason="the extra clap is not installed")

RATE = 48_000


def save_clap(folder: Path, *, fused: bool) -> Path:
    from mmsearch.encoders.open_clip_model import import_torchvision

    import_torchvision()
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    text = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 32, "max_position_embeddings": 90}
    sounds = {"hidden_size": 64, "patch_embeds_hidden_size": 8, "depths": [2, 2, 2, 2]}
    sounds |= {"num_attention_heads": [1, 2, 4, 8], "enable_fusion": fused}
    model = ClapModel(ClapConfig(text_config=text, audio_config=sounds, projection_dim=24))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc").save_pretrained(folder)
    words = Tokenizer(
        WordLevel(
            {word: n for n, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", *WORDS))}, unk_token="<unk>"
        )
    )
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clap(tmp_path_factory.mktemp("clap"), fused=request.param)


def recording(seconds: float) -> Any:
    generator = np.random.default_rng(round(seconds * 10))
    times = np.arange(round(seconds * RATE)) / RATE
    swelling = np.sin(2 * np.pi * 0.7 * times)
    noise = 0.1 * generator.standard_normal(len(times))
    return (swelling * noise + 0.2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


@pytest.mark.parametrize("seconds", [1.0, 3.3, 9.99, 10.0])
def test_the_graph_hears_what_transformers_hears(folder: Path, seconds: float, tmp_path: Path) -> None:
    clap = Clap(folder)
    samples = recording(seconds)
    features = clap.extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"].float()
    front = FrontEnd(clap.extractor)(torch.from_numpy(samples)[None])
    torch.testing.assert_close(front[:, 0], features[:, 0], atol=0.01, rtol=0)  # decibels
    with torch.no_grad():
        heard = clap.model.get_audio_features(
            input_features=features, is_longer=torch.zeros(1, 1, dtype=torch.bool)
        )
    heard = getattr(heard, "pooler_output", heard)
    clap.export(tmp_path / "clap.onnx")
    (got,) = session(tmp_path / "clap.onnx", threads=1).run(["vectors"], {"samples": np.stack([samples] * 2)})
    assert got.shape == (2, 24)
    assert (got * heard.numpy()).sum(1).min() >= 0.9999


def test_texts_are_read_as_transformers_reads_them(folder: Path) -> None:
    clap = Clap(folder)
    texts = ["owl", "a bell and a drum", "rain rain", "train"]
    got = clap.encode_texts(texts)
    for text, vector in zip(texts, got, strict=True):
        with torch.no_grad():
            read = clap.model.get_text_features(**clap.tokenizer(text, return_tensors="pt"))
        read = getattr(read, "pooler_output", read)
        np.testing.assert_allclose(vector, read[0].numpy(), atol=1e-5)


def test_a_bridge_from_clap_is_a_model_folder_that_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    target = Concepts("seen", 20, seed=7, bend=2.0, gap=1.0).save(tmp_path / "seen", ("image", "text"))
    out = tmp_path / "out"
    made = bridge_model(f"clap:{folder}", str(target), "toy", CORPUS, out, Options(epochs=2))
    assert made.space == "seen-1"
    assert verify(out) == []
    encoder = OnnxEncoder(out)
    assert (encoder.audio_window.sample_rate, encoder.audio_window.seconds) == (RATE, 10.0)
    assert encoder.encode_audio([recording(2.0)]).shape == (1, 20)
    code = f"""
import sys, numpy as np
from mmsearch.encoders import load_encoder
assert load_encoder({str(out)!r}).encode_audio([np.zeros(48000, np.float32)]).shape == (1, 20)
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_that_is_not_here_is_told_with_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"hf download nobody/no-such-clap.*--audio clap:FOLDER"):
        find_clap("nobody/no-such-clap")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is missing"):
        find_clap(str(tmp_path))
    ran = in_process("bridge", "--model", "mini", "--audio", f"clap:{tmp_path}", "--out", tmp_path / "out")
    assert ran.code == 5
    assert "preprocessor_config.json is missing" in ran.err


def test_it_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    code = "import sys; from mmsearch.training.clap_files import find_clap\ntry: find_clap('nobody/no-such-clap')\n"
    code += "except Exception as error: assert 'hf download' in str(error)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    ran = process("bridge", "--model", "mini", "--audio", "clap:nobody/none", "--out", tmp_path / "out")
    assert ran.code == 5
    assert "hf download nobody/none" in ran.err
