"""Which recordings of a run are written down, and what becomes of their words: text parts with seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.prepare import Prepared
from mmsearch.engine import Engine
from mmsearch.errors import MissingExtra
from mmsearch.media import modality_of
from mmsearch.rows import FileRecord
from mmsearch.types import Modality, NewPart

if TYPE_CHECKING:
    from mmsearch.encoders.voice import Transcriber

__all__ = ["TRANSCRIBED", "Speech"]

TRANSCRIBED = "transcribed"
"""The attribute (true) of recordings that were listened to for words, whether there were any or not."""


class Speech:
    """``known``: root -> path -> record. ``asked`` None: as before, that is in roots that hold a transcribed recording.

    Raises ``MissingExtra`` if anything is to be written down and the extra ``voice`` is not there.
    """

    def __init__(
        self, engine: Engine, known: Mapping[str, Mapping[str, FileRecord]], asked: bool | None
    ) -> None:
        kind = engine.attribute_kinds().get(TRANSCRIBED)
        done = (
            set(engine.select(f"{TRANSCRIBED} = true")) if kind == "boolean" and asked is not False else set()
        )
        self._roots = tuple(
            root
            for root, files in known.items()
            if asked or any(record.id in done for record in files.values())
        )
        self.behind = {
            path
            for root in self._roots
            for path, record in known[root].items()
            if record.id not in done and self.wants(path)
        }
        """Files that are indexed without their words."""
        self._transcriber: Transcriber | None = None
        if self._roots:
            from mmsearch.encoders.voice import Transcriber

            try:
                self._transcriber = Transcriber()
            except MissingExtra as error:
                if asked:
                    raise
                again = "writing down recordings as before (or --no-transcribe)"
                raise MissingExtra(again, error.extra) from error

    def wants(self, path: str) -> bool:
        """Whether this file is to be written down."""
        return modality_of(path) is Modality.AUDIO and any(
            path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots
        )

    def write_down(self, prepared: Prepared) -> None:
        """Give a decoded recording its words, if it is to have them. Raises ``MediaError``."""
        if self._transcriber is None or prepared.parts is None or not self.wants(prepared.file.path):
            return
        prepared.parts += [
            NewPart(modality=Modality.TEXT, content=said.text, start=said.start, end=said.end)
            for said in self._transcriber.passages(Path(prepared.file.path))
        ]
        prepared.attributes[TRANSCRIBED] = True

    def fits(self, copy: Prepared) -> bool:
        """Whether a file can have the parts of this copy; words that it is not to have are taken out."""
        if copy.modality is not Modality.AUDIO or copy.parts is None:
            return True
        if self.wants(copy.file.path):
            return TRANSCRIBED in copy.attributes
        copy.parts = [part for part in copy.parts if part.modality is Modality.AUDIO]
        copy.attributes = {name: value for name, value in copy.attributes.items() if name != TRANSCRIBED}
        return True
