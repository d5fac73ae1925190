"""What the sound tower reaches on the recordings of `mmsearch.training.judges`: classes, captions and pictures."""

from collections.abc import Callable, Sequence
from io import BytesIO
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.training.features import Floats
from mmsearch.training.judges import everyday_clips, scratch_clips, stamps
from mmsearch.training.sounds import RATE, Samples, read

SECONDS = 10
FORMS = "{}", "the sound of {}", "a recording of {}"

Encode = Callable[[Sequence[Samples]], Floats]


def load(recordings: Sequence[Path | BytesIO]) -> list[Samples]:
    """The first ten seconds of each recording, short ones padded to one second."""
    clips = [read(recording, SECONDS) for recording in recordings]
    return [np.pad(clip, (0, max(0, RATE - len(clip)))) for clip in clips]


def zero_shot(
    sounds: Floats, texts: Floats, labels: NDArray[np.int64], choices: int = 10
) -> dict[str, float]:
    """Top-1 among all classes, and its expectation when the right class stands among `choices` random ones."""
    scores = sounds @ texts.T
    right = scores[np.arange(len(labels)), labels]
    better = (scores > right[:, None]).sum(1)
    others = len(texts) - 1
    chance = [comb(others - int(b), choices - 1) / comb(others, choices - 1) for b in better]
    return {
        f"top_1_of_{len(texts)}": round(100 * float((better == 0).mean()), 1),
        f"top_1_of_{choices}": round(100 * float(np.mean(chance)), 1),
    }


def hit_at(queries: Floats, items: Floats, right: NDArray[np.int64], k: int = 10) -> float:
    """Per cent of queries whose right item is among the best k."""
    scores = queries @ items.T
    better = (scores > scores[np.arange(len(right)), right][:, None]).sum(1)
    return round(100 * float((better < k).mean()), 1)


def evaluate_sounds(
    packages: Path,
    sounds: Encode,
    texts: Callable[[Sequence[str]], Floats],
    pictures: Callable[[Sequence[Path]], Floats],
) -> dict[str, Any]:
    """Zero-shot by name, as "the sound of ..." and "a recording of ..."; stamps to captions and to pictures."""
    figures: dict[str, Any] = {}
    for name, clips in (("scratch", scratch_clips), ("everyday", everyday_clips)):
        recordings, names = clips(packages)
        classes = sorted(set(names))
        labels = np.array([classes.index(name) for name in names])
        heard = sounds(load(recordings))
        figures[name] = {"clips": len(recordings)}
        for form in FORMS:
            figures[name][form] = zero_shot(heard, texts([form.format(name) for name in classes]), labels)
    effects, gallery = stamps(packages)
    heard = sounds(load([stamp.sound for stamp in effects]))
    captions = sorted({stamp.caption for stamp in effects})
    of_caption = np.array([captions.index(stamp.caption) for stamp in effects])
    seen = pictures(gallery)
    of_picture = np.array([gallery.index(stamp.picture) for stamp in effects])
    own, small = seen[of_picture], np.arange(len(effects))
    written = texts(captions)
    figures["stamps"] = {
        "sounds": len(effects),
        "to_caption_hit_10": (hit_at(heard, written, of_caption), _share(len(captions))),
        "to_picture_hit_10": (hit_at(heard, own, small), _share(len(own))),
        "to_picture_of_all_hit_10": (hit_at(heard, seen, of_picture), _share(len(seen))),
    }
    return figures


def _share(items: int, k: int = 10) -> float:
    """Chance level in per cent."""
    return round(100 * min(1.0, k / items), 1)
