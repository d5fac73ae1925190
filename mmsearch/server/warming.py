"""What a first request would have to wait for, done before there is one."""

from __future__ import annotations

import numpy as np

from mmsearch.engine import Engine
from mmsearch.media import load_image
from mmsearch.server.answers import results_json
from mmsearch.shapes import Facet, Sort
from mmsearch.types import Modality, Query, Term

__all__ = ["warm"]


def warm(engine: Engine) -> None:
    """Load a collection's vectors, words and attributes, all code of a search, and the towers of its model: that of
    texts, and those of pictures and sounds if it holds any. Each takes some 50 MB; few ask with a sound where there
    are none.

    Raises what ``Engine.results`` raises.
    """
    held = engine.catalog.part_counts(engine.collection_id).keys() & engine.encoder.modalities
    words = Term(text="wram up")  # a word that must be corrected loads a library
    kinds = engine.attribute_kinds()
    named = [name for name, kind in kinds.items() if kind == "text"]
    query = Query(
        terms=(words,),
        k=1,
        hybrid=True,
        where="id > 0 and added > '2000-01-01' and key != ''",
        facets=[Facet(name) for name in kinds],
        group_by=named[0] if named else None,
        prefix=True,
        highlight=True,
        explain=True,
        diversity=0.1,
    )
    for _ in range(2):  # what the second one does is what all others do
        results_json(engine.collection, engine.results(query))
    engine.results(Query(k=1, sort=[Sort("id")]))
    if Modality.IMAGE in held:
        picture = engine.encoder.prepare_image(load_image(_PICTURE, name="warm up"))
        engine.results(Query(terms=(Term(image=picture), words), k=1))
    if Modality.AUDIO in held:
        window = engine.encoder.audio_window
        silence = np.zeros(round(window.sample_rate * window.seconds), np.float32)
        engine.encoder.encode_audio([silence])
    engine.suggest("warm up", 1)


_PICTURE = (
    b"BM:\0\0\0\0\0\0\x006\0\0\0(\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0"
    b"\xc4\x0e\0\0\xc4\x0e\0\0\0\0\0\0\0\0\0\0\x80\x80\x80\0"
)
"""One grey pixel."""
