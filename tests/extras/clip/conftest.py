"""Tiny models of every family and their exports, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmsearch.encoders.sources import Source, find_source
from mmsearch.training.export_clip import Exported, Precision, export_model
from tests.clip_models import save_tiny

PHOTOS = sorted((Path(__file__).parents[3] / "mmsearch" / "training" / "general").glob("*.jpg"))

Tiny = Callable[[str], Source]
Export = Callable[[str, Precision], Exported]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny model of a family."""
    made: dict[str, Source] = {}

    def get(family: str) -> Source:
        if family not in made:
            source = find_source(save_tiny(tmp_path_factory.mktemp("tiny") / family, family))
            assert source is not None
            made[family] = source
        return made[family]

    return get


@pytest.fixture(scope="session")
def export(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The export of the tiny model of a family in a precision."""
    made: dict[tuple[str, Precision], Exported] = {}

    def get(family: str, precision: Precision) -> Exported:
        if (family, precision) not in made:
            out = tmp_path_factory.mktemp("export") / f"{family}-{precision}"
            made[family, precision] = export_model(tiny(family), out, precision=precision, threads=1)
        return made[family, precision]

    return get
