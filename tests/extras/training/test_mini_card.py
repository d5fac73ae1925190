"""The figures of a built-in model's card are those of ``mmsearch eval``."""

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sklearn.metrics import average_precision_score

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.errors import ModelError
from mmsearch.evaluate import evaluate
from mmsearch.training import mini_card
from mmsearch.training.mini_card import (
    BEGIN,
    END,
    asked_for,
    figures,
    products_manifest,
    write,
)
from mmsearch.training.pairs import Pair, read_fashion
from tests.colour_model import save_colour_model
from tests.toy import COLOURS


@pytest.mark.parametrize(
    ("kind", "colour", "words"),
    [
        ("dresses", "red", "a red dress"),
        ("watches", "steel", "a steel watch"),
        ("scarves", "off white", "an off white scarf"),
        ("t-shirts", "navy blue", "a navy blue t-shirt"),
        ("casual shoes", "black", "black casual shoes"),
        ("jeans", "orange", "orange jeans"),
        ("kurtis", "olive", "an olive kurti"),
        ("laptop bag", "black", "a black laptop bag"),
        ("ties", "green", "a green tie"),
    ],
)
def test_a_product_is_asked_for_in_the_singular(kind: str, colour: str, words: str) -> None:
    assert asked_for(Pair(Path("1.jpg"), (), kind, colour)) == words


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four photos with two captions each, and 44 products held out of training: shirts and shoes of four colours."""
    folder = tmp_path / "data"
    generator = np.random.default_rng(0)
    for name in ("flickr8k", "fashion"):
        (folder / name / "images").mkdir(parents=True)
    names = ["red", "green", "blue", "white"]
    rows = []
    for name in names:
        PIL.Image.new("RGB", (8, 8), COLOURS[name]).save(folder / "flickr8k" / "images" / f"{name}.png")
        rows += [(f"{name}.png", f"{name} here"), (f"{name}.png", f"something {name}")]
    with (folder / "flickr8k" / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    (folder / "flickr8k" / "dev.txt").write_text("\n".join(f"{name}.png" for name in names))
    held = [n for n in range(1000) if int(hashlib.sha256(str(n).encode()).hexdigest(), 16) % 10 == 0]
    with (folder / "fashion" / "products.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "articleType", "baseColour", "title", "gender", "usage"])
        worn = ["a title", "Women", "Casual"]
        # Trained on, so its picture is not read.
        table.writerow([1 if 1 not in held else 3, "images/none.png", "Shirts", "Red", *worn])
        for place, number in enumerate(held[:44]):
            colour = names[place % 4]
            shade = np.array(COLOURS[colour]) * 0.5 + 64 + generator.integers(-60, 61, 3)
            path = f"images/{number}.png"
            PIL.Image.new("RGB", (8, 8), tuple(map(int, shade))).save(folder / "fashion" / path)
            kind = "Socks" if place in (7, 15) else "Shirts" if place % 8 < 4 else "Casual Shoes"
            table.writerow([number, path, kind, colour.title(), *worn])
    return folder


def test_colour_and_type_is_asked_of_all_products(data: Path, tmp_path: Path) -> None:
    encoder = OnnxEncoder(save_colour_model(tmp_path / "model"))
    manifest = products_manifest(data)
    results = {result.name: result for result in evaluate(encoder, manifest).results}
    assert results["zero-shot type"].candidates == 2  # of socks there are too few
    assert results["type -> products"].queries == 2
    result = results["colour and type -> products"]
    _, products = read_fashion(data)
    assert result.candidates == len(products) == 44
    words = [asked_for(product) for product in products]
    asked = sorted({word for word in words if words.count(word) >= 5})
    assert result.queries == len(asked) < len(set(words))
    images = encoder.encode_images([PIL.Image.open(product.picture) for product in products])
    expected = [
        average_precision_score([word == query for word in words], images @ encoder.encode_texts([query])[0])
        for query in asked
    ]
    assert result.measures["map"].value == pytest.approx(np.mean(expected), abs=1e-6)


def test_the_figures_go_between_the_comments_and_nothing_else_changes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_colour_model(tmp_path / "model")
    card = model / "MODEL_CARD.md"
    card.write_text(f"# colours\n\nBefore.\n\n{BEGIN}\nformer figures\n{END}\n\nBehind.\n")
    monkeypatch.setattr(sys, "argv", ["mini_card", "--data", str(data), "--model", str(model)])
    mini_card.main()
    text = card.read_text()
    assert text.startswith(f"# colours\n\nBefore.\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nBehind.\n")
    assert "former figures" not in text
    assert "### Photos: Flickr8k dev, 4 photos" in text
    assert "| text->image | 8, 4 | **100.0** (100.0 to 100.0; 25.0) |" in text
    assert "| caption->caption | 4, 4 |" in text
    assert figures(OnnxEncoder(model), data) in text
    mini_card.main()
    assert card.read_text() == text


def test_a_card_without_comments_gets_them_and_half_a_pair_is_refused(tmp_path: Path) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("# colours\n")
    write(card, "figures")
    assert card.read_text().startswith(f"# colours\n\n## Measured\n\n{BEGIN}\n")
    card.write_text(f"# colours\n{BEGIN}\n")
    with pytest.raises(ModelError, match="one of the comments"):
        write(card, "figures")


def test_missing_data_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    model = save_colour_model(tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["mini_card", "--data", str(tmp_path), "--model", str(model)])
    with pytest.raises(SystemExit) as stopped:
        mini_card.main()
    assert stopped.value.code == 1
