"""docs/http.md and README.md: every request that they show is made with curl, and answered as they say."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from indexer.feeds import index_feed
from indexer.pipeline import index
from mmsearch.engine import Engine
from mmsearch.server.app import create_app
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from tests.e2e.test_readme import README, ROOT
from tests.serving import serving

DOCUMENT = ROOT / "docs" / "http.md"
NEEDS_AN_EXTRA = {"/v1/transcribe": 501}
UNSTEADY = {"score", "ms", "revision"}
"""Of these only the kind is compared."""

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")


@dataclasses.dataclass
class Block:
    """Commands of a document, the line that they begin at, and the answer that stands behind them."""

    commands: str
    line: int
    answer: Any = None


def blocks(document: Path) -> list[Block]:
    found: list[Block] = []
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(sh|json)\n(.*?)^```$", text, re.M | re.S):
        if match[1] == "json":
            found[-1].answer = json.loads(match[2])
        else:
            found.append(Block(match[2], text.count("\n", 0, match.start()) + 1))
    return [block for block in found if re.search(r"\bcurl\b", block.commands)]


@dataclasses.dataclass
class Shell:
    """Runs blocks in a folder against a server; ``asked`` are method, path and status of all requests."""

    folder: Path
    url: str
    key: str
    asked: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)

    def run(self, block: Block) -> list[Any]:
        """The JSON that the block's requests were answered with."""
        (self.folder / ".curlrc").write_text(
            'write-out = "%{stderr}@ %{method} %{url_effective} %{http_code}\\n"\n'
        )
        text = block.commands.replace("http://localhost:8080", self.url).replace(
            "KEY=mms_...", f"KEY={self.key}"
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env={**os.environ, "CURL_HOME": str(self.folder), "URL": self.url, "KEY": self.key},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"line {block.line}: {done.stderr}"
        asked = re.findall(r"^@ (\S+) (\S+) (\d+)$", done.stderr, re.M)
        assert len(asked) == len(re.findall(r"\bcurl\b", block.commands)), f"line {block.line}: {done.stderr}"
        for method, url, status in asked:
            path = urlsplit(url).path
            fine = 200 <= int(status) < 300 or NEEDS_AN_EXTRA.get(path) == int(status)
            assert fine, f"line {block.line}: {method} {path}: {status} {done.stdout}"
            self.asked.append((method, path, int(status)))
        return list(values(done.stdout))


def values(text: str) -> Iterator[Any]:
    """The JSON objects that stand in a text one after the other; figures between them are left out."""
    decoder, place = json.JSONDecoder(), 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError:
            place += 1
        else:
            yield value


def difference(said: Any, told: Any, name: str = "") -> str:
    """What is said and not so; the answer may have more fields, and longer lists."""
    if isinstance(said, dict) and isinstance(told, dict):
        if missing := said.keys() - told.keys():
            return f"{name}: has no {missing}"
        found = (difference(value, told[key], f"{name}.{key}") for key, value in said.items())
        return next(filter(None, found), "")
    if isinstance(said, list) and isinstance(told, list):
        if len(said) > len(told):
            return f"{name}: has {len(told)} entries"
        return next(
            filter(None, (difference(a, b, f"{name}[]") for a, b in zip(said, told, strict=False))), ""
        )
    if name.rpartition(".")[2] in UNSTEADY:
        return "" if isinstance(told, int | float) else f"{name}: {told!r}"
    return "" if said == told else f"{name}: {told!r}, and not {said!r}"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A server with a photo in the collection ``default``, a key, and the files that the document names."""
    home = tmp_path / "home"
    with Engine.open(home) as engine:
        index(engine, [ROOT / "data" / "photos" / "hedgehog.jpg"])
    _, key = Keys(home).create("me", "admin")
    shutil.copy(ROOT / "data" / "photos" / "cat.jpg", tmp_path / "boots.jpg")
    shutil.copy(ROOT / "tests" / "fixtures" / "speech" / "question.flac", tmp_path / "question.flac")
    with serving(home, Options(keep_queries=True)) as url:
        yield Shell(tmp_path, url, key)


@needs_curl
def test_every_request_of_the_document_is_answered_as_it_says(shell: Shell) -> None:
    shown = blocks(DOCUMENT)
    for block in shown:
        told = shell.run(block)
        if block.answer is not None:
            wrong = [difference(block.answer, one) for one in told]
            assert "" in wrong, f"line {block.line}: {wrong} {told}"
    assert sum(block.answer is not None for block in shown) > 8
    small, photo = (shell.folder / name for name in ("small.webp", "photo.jpg"))
    assert small.read_bytes()[8:12] == b"WEBP"
    assert photo.read_bytes() == (ROOT / "data" / "photos" / "hedgehog.jpg").read_bytes()
    missing = []
    for path, methods in create_app(Path("nowhere")).openapi()["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", r"[^/]+", path))
        for method in methods:
            if not any(method.upper() == one and pattern.fullmatch(at) for one, at, _ in shell.asked):
                missing.append(f"{method.upper()} {path}")
    assert missing == [], "the document shows no request of these"


def test_the_python_example_prints_what_it_says(shell: Shell) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    ((example, said),) = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text, re.M | re.S)
    example = example.replace("http://localhost:8080", shell.url).replace("mms_...", shell.key)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=shell.folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr


@needs_curl
def test_the_request_of_the_readme_finds_what_the_feed_has(tmp_path: Path) -> None:
    (block,) = blocks(README)
    with Engine.open(tmp_path / "home", collection="shop") as engine:
        index_feed(engine, ROOT / "data" / "products.csv")
    with serving(tmp_path / "home") as url:
        (told,) = Shell(tmp_path, url, "").run(block)
    assert told["hits"]
    assert "pan" in told["hits"][0]["item"]["title"].lower()
