"""Names of open_clip models, where their files go, and how fast it is known that a server cannot be reached."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mmsearch.encoders import load_encoder, model_files
from mmsearch.encoders.connection import check_connection, endpoint
from mmsearch.encoders.known import KNOWN
from mmsearch.encoders.sources import find_source
from mmsearch.errors import ModelError


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_MODELS", str(tmp_path / "models"))
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "models"


@pytest.mark.parametrize("short", list(KNOWN))
def test_a_short_name_is_its_full_name(short: str, models: Path) -> None:
    by_short, by_full = find_source(short), find_source(KNOWN[short].source)
    assert by_short is not None
    assert by_full is not None
    assert (by_short.name, by_short.folder) == (by_full.name, by_full.folder)
    assert by_short.folder.parent == models
    assert by_short.repo == by_full.repo == KNOWN[short].repo
    assert not by_short.present


def test_every_model_has_a_folder_of_its_own() -> None:
    sources = [find_source(short) for short in KNOWN]
    assert len({source.folder for source in sources if source}) == len(KNOWN)


def test_a_tag_is_read_as_open_clip_reads_it() -> None:
    one, other = find_source("open-clip:ViT-B-32/LAION2B-s34b-b79k"), find_source("clip-b32")
    assert one is not None
    assert other is not None
    assert one.name == other.name


def test_models_for_research_only_are_marked() -> None:
    research = {short for short, known in KNOWN.items() if known.research_only}
    assert research == {short for short, known in KNOWN.items() if "amlr" in known.licence}
    assert research


def test_a_slip_of_the_fingers_is_told_what_was_meant() -> None:
    with pytest.raises(ModelError, match=r"Did you mean clip-b32 or"):
        load_encoder("clip-b23")
    with pytest.raises(ModelError, match="no such model"):
        model_files("nothing-like-it")
    with pytest.raises(ModelError, match="hf-hub:ORGANISATION/NAME"):
        model_files("hf-hub:alone")


def test_a_model_that_is_not_here_says_how_to_get_it(models: Path) -> None:
    with pytest.raises(ModelError, match="mmsearch models pull siglip2-b16") as caught:
        load_encoder("siglip2-b16")
    assert str(models) in str(caught.value)
    assert "--dry-run" in str(caught.value)


def listening(backlog: int) -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(backlog)
    return server


def test_a_server_that_listens_is_reached_and_one_that_does_not_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listening(5) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}/")
        assert endpoint() == f"http://127.0.0.1:{port}"
        check_connection()
    with pytest.raises(ModelError, match=r"127\.0\.0\.1 cannot be reached \(Connection refused\)"):
        check_connection()


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes when the queue of a server is full gets no answer, as behind a wall that drops what it forbids."""
    with listening(0) as server:
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{address[1]}")
        with pytest.raises(ModelError, match="cannot be reached"):
            check_connection()
        for client in waiting:
            client.close()


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_with_a_proxy_only_the_proxy_has_to_be_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    with listening(5) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv(name, f"http://user:secret@127.0.0.1:{port}")
        check_connection()
    with pytest.raises(ModelError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        check_connection()
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("no_proxy", "hub.invalid")
    with pytest.raises(ModelError, match=r"hub\.invalid cannot be reached"):
        check_connection()


def test_offline_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(5) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
            check_connection()
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        check_connection()
        monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
        with pytest.raises(ModelError, match="HF_ENDPOINT is no address"):
            check_connection()
