"""Keys of the HTTP server: hashed, scoped, revoked."""

from __future__ import annotations

import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmsearch.errors import ConfigError, StoreError
from mmsearch.server.keys import FILE_NAME, Keys


def test_a_new_key_is_found_by_its_secret_and_by_no_other(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key, secret = keys.create("shop", "search")
    other, _ = keys.create("feed", "write")
    assert keys.find(secret) == key
    for wrong in (
        "",
        "mms_",
        secret[:-1],
        secret + "x",
        secret.replace(key.id, other.id),
        "x" * 5000,
        "mms_ü_é",
    ):
        assert keys.find(wrong) is None


def test_the_secret_is_not_in_the_file_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    _, secret = Keys(tmp_path).create("shop", "admin")
    path = tmp_path / FILE_NAME
    assert secret not in path.read_text()
    assert secret.rsplit("_", 1)[1] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("scope", "may"),
    [("search", {"search"}), ("write", {"search", "write"}), ("admin", {"search", "write", "admin"})],
)
def test_a_scope_includes_the_smaller_ones(tmp_path: Path, scope: str, may: set[str]) -> None:
    key, _ = Keys(tmp_path).create("k", scope)  # type: ignore[arg-type]
    assert {one for one in ("search", "write", "admin") if key.allows(one, "any")} == may


def test_a_key_of_some_collections_is_refused_in_others(tmp_path: Path) -> None:
    key, _ = Keys(tmp_path).create("k", "admin", collections=["shoes", "hats"])
    assert key.allows("write", "hats")
    assert not key.allows("search", "socks")


def test_a_revoked_or_expired_key_is_found_no_more_also_by_a_server_that_knew_it(tmp_path: Path) -> None:
    server, tool = Keys(tmp_path), Keys(tmp_path)
    key, secret = tool.create("shop", "search")
    assert server.find(secret) == key
    tool.revoke(key.id)
    assert server.find(secret) is None
    _, old = tool.create("old", "search", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert server.find(old) is None
    with pytest.raises(ConfigError, match="no key"):
        tool.revoke(key.id)


def test_keys_made_by_many_at_once_are_all_kept(tmp_path: Path) -> None:
    threads = [threading.Thread(target=Keys(tmp_path).create, args=(f"k{n}", "search")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in Keys(tmp_path).all()) == sorted(f"k{n}" for n in range(12))


def test_a_damaged_file_is_an_error_that_names_it_and_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps([{"id": 1}]))
    with pytest.raises(StoreError, match=FILE_NAME):
        Keys(tmp_path).find("mms_1_x")


@pytest.mark.parametrize(
    ("name", "words"), [(" ", "needs a name"), ("a\nb", "cannot be shown"), ("\x1b[31m", "cannot be shown")]
)
def test_a_name_is_one_that_can_be_read_later(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Keys(tmp_path).create(name, "search")
    assert Keys(tmp_path).all() == []
