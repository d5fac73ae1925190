"""Exported graphs give what the torch modules give."""

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from mmsearch.training.export import chain, export_graph, optimise, quantise_products, session, store_half
from mmsearch.training.heads import Head, ImageHead
from mmsearch.training.towers import ImageReadout, TextTower
from mmsearch.training.trunks import CLASS_FEATURES, IMAGE_FEATURES, TextTrunk, load_tokenizer, tokenize


def small_head() -> Head:
    torch.manual_seed(0)
    head = Head(
        ImageHead(torch.randn(50, IMAGE_FEATURES)),
        (torch.randn(1000, CLASS_FEATURES) * 0.05, torch.zeros(1000)),
        nn.functional.normalize(torch.randn(1000, 384), dim=1),
    )
    nn.init.normal_(head.text.linear.weight, std=0.02)
    head.eval()
    return head


def test_chained_halved_image_readout_equals_torch(tmp_path: Path) -> None:
    head = small_head()
    features = torch.randn(3, IMAGE_FEATURES)
    twice, readout, whole = tmp_path / "twice.onnx", tmp_path / "readout.onnx", tmp_path / "whole.onnx"
    axes = {0: "n"}
    export_graph(nn.Hardtanh(-9, 9), (features,), ["pixels"], "features", axes, twice)
    export_graph(ImageReadout(head), (features,), ["features"], "vectors", axes, readout)
    chain(twice, readout, whole)
    optimise(whole, whole)
    before = whole.stat().st_size
    store_half(whole)
    assert whole.stat().st_size < 0.55 * before
    (got,) = session(whole).run(["vectors"], {"pixels": features.numpy()})
    with torch.no_grad():
        expected = head.image_vectors(features.clamp(-9, 9)).numpy()
    assert got.shape == (3, 768)
    assert (got * expected).sum(1).min() > 0.9999


def test_int8_text_tower_stays_near_the_float_one(tmp_path: Path) -> None:
    head, trunk = small_head(), TextTrunk()
    ids, mask = tokenize(
        load_tokenizer(), ["a dog on grass", "two men in red shirts play football in the rain"]
    )
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    axes = {0: "n", 1: "length"}
    export_graph(TextTower(trunk, head), (ids, mask), ["input_ids", "attention_mask"], "vectors", axes, plain)
    quantise_products(plain, small)
    with torch.no_grad():
        expected = head.text_vectors(trunk(ids, mask)).numpy()
    (got,) = session(small).run(["vectors"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    assert (got * expected).sum(1).min() > 0.98
    onnx.checker.check_model(onnx.load(plain))
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-4)


def test_padding_changes_no_text_feature() -> None:
    trunk, tokenizer = TextTrunk(), load_tokenizer()
    both, mask = tokenize(
        tokenizer, ["a dog", "a very long sentence about one particular dog that never ends"]
    )
    alone, alone_mask = tokenize(tokenizer, ["a dog"])
    with torch.no_grad():
        torch.testing.assert_close(trunk(both, mask)[:1], trunk(alone, alone_mask), atol=1e-5, rtol=0)
