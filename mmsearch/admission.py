"""Admission: which encoder may encode for a collection.

Its space id must be the collection's, and its canonical vectors must be those that the catalog keeps (see
``mmsearch.encoders.canonical``). An encoder that passed is remembered by its fingerprint and not compared again: a
search pays one small query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.encoders import Encoder, full_name, load_encoder
from mmsearch.errors import CatalogBusy, ModelError, SpaceMismatch, StoreError
from mmsearch.rows import CollectionInfo, Identity
from mmsearch.types import Modality, Space

__all__ = ["Era", "identity_of", "model_name"]


class Era:
    """A collection from one change of its model to the next: its row in the catalog, and the encoder that may encode
    for it. Safe to share between threads.

    ``model`` is what ``encoder`` was asked for by (see ``model_name``); without an encoder the collection's own is
    loaded when it is first needed.

    Raises ``SpaceMismatch`` if ``encoder`` is not admitted.
    """

    def __init__(
        self,
        catalog: Catalog,
        info: CollectionInfo,
        encoder: Encoder | None = None,
        *,
        model: str = "",
        load: Callable[[str | Path], Encoder] = load_encoder,
        notice: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.info = info
        self._catalog = catalog
        self._load = load
        self._notice = notice
        self._lock = threading.Lock()
        self._doubtful = False  # the collection was made before catalogs kept canonical vectors
        if encoder is not None:
            self._admit(encoder, model)
        self._encoder = encoder

    @property
    def space(self) -> Space:
        """What the collection's vectors live in."""
        return Space(self.info.space, self.info.dim)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded on first use. Raises ``ModelError``, ``SpaceMismatch``."""
        with self._lock:
            if self._encoder is None:
                encoder = self._load(self.info.model)
                self._admit(encoder, self.info.model)
                self._encoder = encoder
            return self._encoder

    @property
    def loaded(self) -> Encoder | None:
        """The encoder, if it was needed so far."""
        return self._encoder

    def settle(self) -> None:
        """Before vectors of the encoder are stored: give a collection that has no canonical vectors the encoder's.

        A search does not do so, it would take a second.
        """
        if self._doubtful and self._encoder is not None:
            self._remember(identity_of(self._encoder, self.info.model))
            self._doubtful = False

    def _admit(self, encoder: Encoder, model: str) -> None:
        info = self.info
        if encoder.space != self.space:
            theirs = f"{encoder.space.id!r} ({encoder.space.dim} dimensions)"
            if model == info.model:
                raise SpaceMismatch(
                    f"the model {model!r} now maps into {theirs}, but collection {info.name!r} holds vectors of "
                    f"{info.space!r} ({info.dim}): encode it again with {self._migrate(model)}, or index into another "
                    "--collection"
                )
            raise SpaceMismatch(
                f"collection {info.name!r} holds vectors of {info.space!r} ({info.dim} dimensions), the model maps "
                f"into {theirs}: leave --model out to use {info.model!r}, index into another --collection, or encode "
                f"this one again with {self._migrate(model)}"
            )
        if self._is_admitted(encoder):
            return
        known = self._canonicals()
        if not known and model == info.model:
            self._doubtful = True
            return
        from mmsearch.encoders.canonical import CANONICAL_COSINE, canonical_vectors, strangers

        if not known:
            try:
                own_encoder = self._load(info.model)
            except ModelError as error:
                self._notice(
                    f"whether {model} makes the vectors of collection {info.name!r} cannot be checked, it is "
                    f"taken at its word: {error}"
                )
                return
            known = dict(identity_of(own_encoder, info.model).canonicals)
            self._remember(Identity(info.model, self.space, own_encoder.fingerprint, known))
        _check_base(encoder)
        found = canonical_vectors(encoder, encoder.modalities - _adapted(encoder))
        for modality, cosine in strangers(found, known).items():
            raise SpaceMismatch(
                f"the {modality} tower of {model or 'the model'} is not the one that collection {info.name!r} was made "
                f"with, though both say {info.space!r}: canonical vectors have a cosine of {cosine:.3f} and need "
                f"{CANONICAL_COSINE}. Leave --model out or use another --collection; or encode this one again with "
                f"{self._migrate(model)}"
            )
        fresh = {modality: rows for modality, rows in found.items() if modality not in known}
        self._remember(Identity(model, self.space, encoder.fingerprint, fresh))

    def _migrate(self, model: str) -> str:
        import shlex

        return f"`mmsearch migrate {shlex.quote(self.info.name)} --model {shlex.quote(model or 'NEW')}`"

    def _is_admitted(self, encoder: Encoder) -> bool:
        query = "SELECT 1 FROM admitted WHERE collection_id = ? AND fingerprint = ?"
        with self._catalog.reading() as connection:
            return connection.execute(query, (self.info.id, encoder.fingerprint)).fetchone() is not None

    def _canonicals(self) -> dict[Modality, NDArray[np.floating]]:
        query = "SELECT modality, data FROM canonicals WHERE collection_id = ?"
        with self._catalog.reading() as connection:
            return {
                Modality(name): np.frombuffer(data, "<f2").reshape(-1, self.info.dim)
                for name, data in connection.execute(query, (self.info.id,))
            }

    def _remember(self, identity: Identity) -> None:
        """Note that the encoder is admitted, if the catalog can be written now; else it is compared again next time."""
        if self._catalog.read_only:
            return
        from mmsearch import writes

        try:
            with (
                self._catalog.writing(wait=0, what="admitting a model"),
                self._catalog.transaction() as connection,
            ):
                if self._catalog.epoch(self.info.id) == self.info.epoch:
                    writes.admit(connection, self.info.id, identity.fingerprint, identity.canonicals)
        except CatalogBusy:
            pass
        except StoreError as error:
            self._notice(f"that the model fits was not noted, the next use compares it again: {error}")


def identity_of(encoder: Encoder, model: str) -> Identity:
    """What a collection made with this encoder remembers of it. Loads its towers. Raises ``ModelError``."""
    from mmsearch.encoders.canonical import canonical_vectors

    _check_base(encoder)
    canonicals = canonical_vectors(encoder, encoder.modalities - _adapted(encoder))
    return Identity(model, encoder.space, encoder.fingerprint, canonicals)


def _adapted(encoder: Encoder) -> frozenset[Modality]:
    """Modalities whose towers were made to meet the others of their space. Only the folder of a model can say so."""
    adapted: frozenset[Modality] = getattr(encoder, "adapted", frozenset())
    return adapted


def model_name(model: str | Path | Encoder) -> str:
    """What a collection remembers: its full name, or the space of a program's encoder."""
    return full_name(model) if isinstance(model, str | Path) else model.space.id


def _check_base(encoder: Encoder) -> None:
    from mmsearch.encoders.onnx import OnnxEncoder

    if isinstance(encoder, OnnxEncoder):
        encoder.check_base()
