"""What ``make shop`` runs: the feed of the sample as a storefront."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.e2e.conftest import process_env
from tests.e2e.page.conftest import ROOT, Opener, names


def test_make_shop_serves_the_products_of_the_sample(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    command = tmp_path / "mmsearch"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mmsearch "$@"\n')
    command.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {
        name: value for name, value in process_env().items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    script = ["sh", "data/shop.sh", str(tmp_path), str(tmp_path / "home"), "data/products.csv", str(port)]
    with subprocess.Popen(
        script, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            ready(address, server)
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
        finally:
            os.kill(server.pid, signal.SIGTERM)
        assert server.stdout is not None
        assert f"{address}/?c=shop&view=shop" in server.stdout.read()


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
