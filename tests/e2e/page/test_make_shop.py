"""What ``make shop`` runs: the feed of the sample as a storefront."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.e2e.conftest import process_env
from tests.e2e.page.conftest import ROOT, Opener, names


@contextlib.contextmanager
def shop(folder: Path, feed: str) -> Iterator[tuple[str, list[str]]]:
    """The address of the shop that ``make shop`` serves, and (in the end) what it printed."""
    if not (folder / "mmsearch").exists():
        (folder / "python").symlink_to(sys.executable)
        (folder / "mmsearch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mmsearch "$@"\n')
        (folder / "mmsearch").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, printed = f"http://127.0.0.1:{port}", list[str]()
    environment = {
        name: value for name, value in process_env().items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    script = ["sh", "data/shop.sh", str(folder), str(folder / "home"), feed, str(port)]
    with subprocess.Popen(
        script, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            ready(address, server)
            yield address, printed
        finally:
            os.kill(server.pid, signal.SIGTERM)
        assert server.stdout is not None
        printed.append(server.stdout.read())


def test_make_shop_serves_the_products_of_the_sample(opened: Opener, tmp_path: Path) -> None:
    with shop(tmp_path, "data/products.csv") as (address, printed):
        page = opened(at=address, c="shop", view="shop")
        with (ROOT / "data" / "products.csv").open() as file:
            rows = list(csv.DictReader(file))
        groups = {row["parent"] or row["id"] for row in rows}
        assert len(names(page)) == len(groups)
        page.wait_for_function("() => document.querySelector('#results img')?.naturalWidth > 100")
        assert set(page.locator("#tabs button").all_inner_texts()) == {
            "Everything",
            *(row["category"] for row in rows),
        }
        page.goto(f"{address}/?c=shop")
        page.wait_for_selector("#as-shop[aria-pressed=true]")  # what it is looked at without being told
        assert len(names(page)) == len(groups)
        page.goto("about:blank")
    assert f"{address}/?c=shop&view=shop" in printed[0]


def test_a_shop_of_ones_own_feed_has_nothing_of_the_sample(tmp_path: Path) -> None:
    feed = tmp_path / "my feed.csv"
    feed.write_text("id,title\n1,lamp\n")
    for given, count in (("data/products.csv", 25), (str(feed), 1)):
        with shop(tmp_path, given) as (address, _):
            assert httpx.get(f"{address}/v1/collections/shop").json()["items"] == count


def ready(address: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, server.stdout and server.stdout.read()
        assert time.monotonic() < deadline, "the server is not ready"
        try:
            if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
