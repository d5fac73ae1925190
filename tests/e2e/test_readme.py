"""What README.md and docs/python.md show is what happens: their commands and examples are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a Markdown file in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.M | re.S)


def session(document: Path) -> list[tuple[str, list[str]]]:
    """The commands of a document's console blocks, each with the lines it is said to print."""
    steps: list[tuple[str, list[str]]] = []
    for block in blocks(document, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return steps


def run(command: list[str], folder: Path) -> list[str]:
    """Run a command where ``data/`` is the sample, with a home of its own; returns the lines it prints."""
    environ = {
        **os.environ,
        "MMSEARCH_HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("readme")
    (made / "data").symlink_to(ROOT / "data")
    return made


def shape(line: str) -> object:
    """What of an output line must stay the same: its words and its form, but not numbers, quotes and file names."""
    if line.startswith("{"):
        return sorted(json.loads(line))
    line = re.sub(r'".*"', '"..."', line)
    line = re.sub(r"data/\S+(  p\. \d+)?", "PATH", line)
    line = re.sub(r"\d+(\.\d+)?", "0", line)
    return re.sub(r' +("...")?', " ", line).strip()


def best_path(lines: list[str]) -> str | None:
    """The file that the first line of search results names."""
    if lines and lines[0].startswith("{"):
        return Path(json.loads(lines[0])["path"]).name
    found = re.search(r"data/\S+", lines[0]) if lines else None
    return Path(found[0]).name if found else None


def test_commands_of_the_readme_print_what_it_says(folder: Path) -> None:
    steps = session(README)
    assert len(steps) > 5
    for command, said in steps:
        printed = run(shlex.split(command), folder)
        assert [shape(line) for line in printed] == [shape(line) for line in said], command
        assert best_path(printed) == best_path(said), command


def test_the_first_two_commands_are_targets_of_the_makefile() -> None:
    first = blocks(README, "sh")[0]
    targets = re.findall(r"^make (\S+)", first, re.M)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def test_python_example_of_the_readme_prints_what_it_says(folder: Path) -> None:
    (example,) = blocks(README, "python")
    (said,) = blocks(README, "text")
    assert run([sys.executable, "-c", example], folder) == said.splitlines()


def test_python_examples_of_the_docs_run(folder: Path) -> None:
    nearest, whole = blocks(ROOT / "docs" / "python.md", "python")
    assert run([sys.executable, "-c", nearest], folder)
    assert run([sys.executable, "-c", whole], folder) == ["2", "sku-1", "red 1", "runing -> running"]


def links() -> Iterator[tuple[Path, str]]:
    for document in [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                yield document, target


@pytest.mark.parametrize(
    ("document", "target"), [pytest.param(*link, id=f"{link[0].name}-{link[1]}") for link in links()]
)
def test_links_between_the_documents_lead_somewhere(document: Path, target: str) -> None:
    assert (document.parent / target).exists()
