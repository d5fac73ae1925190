"""Real pictures and texts with the vectors that torch gives for them: what an export is measured on."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch.encoders.canonical import TEXTS, pictures
from mmsearch.encoders.open_clip import OpenClipEncoder
from mmsearch.errors import ConfigError
from mmsearch.media import load_image, modality_of
from mmsearch.tables import read_table
from mmsearch.types import Image, Modality, Vectors

GENERAL = Path(__file__).parent / "general" / "captions.csv"
MOST = 500  # pictures, and texts, that are taken of a person's own


@dataclasses.dataclass(frozen=True)
class Real:
    """Real inputs, and the vectors (n, dim) that torch gives for them. The canonical inputs are the last of each."""

    pictures: Sequence[Image]
    texts: Sequence[str]
    vectors: Mapping[Modality, Vectors]

    def of(self, modality: Modality) -> Sequence[Any]:
        return self.pictures if modality is Modality.IMAGE else self.texts


def real_inputs(encoder: OpenClipEncoder, folder: Path | None) -> Real:
    """The general set that comes with mmsearch, a person's own `folder` (pictures, and ``.txt`` files with a text a
    line), and the canonical inputs, encoded with torch.

    Raises ``ConfigError`` if there is no such folder, ``MediaError`` for a picture that cannot be read.
    """
    rows = general()
    shown = [
        load_image(GENERAL.parent / name, min_side=encoder.image_size)
        for name in dict.fromkeys(photo for photo, _ in rows)
    ]
    said = [caption for _, caption in rows]
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not folder.is_dir():
            raise ConfigError(f"{folder}: is no folder of inputs")
        own = [path for path in files if modality_of(path) is Modality.IMAGE]
        shown += [load_image(path, min_side=encoder.image_size) for path in own[:MOST]]
        lines = [
            line
            for path in files
            if path.suffix == ".txt"
            for line in path.read_text("utf-8", "replace").splitlines()
        ]
        said += [line for line in lines if line.strip()][:MOST]
    shown = [encoder.prepare_image(picture) for picture in shown]
    shown += pictures()
    said += TEXTS
    vectors = {Modality.IMAGE: encoder.encode_images(shown), Modality.TEXT: encoder.encode_texts(said)}
    return Real(shown, said, vectors)


def general() -> list[tuple[str, str]]:
    """Photo and caption of each row of the general set that has both."""
    rows = [row.cells for row in read_table(GENERAL)]
    return [(str(row["image"]), str(row["text"])) for row in rows if "image" in row and "text" in row]
