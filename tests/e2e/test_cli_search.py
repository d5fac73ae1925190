"""``mmsearch search``: what is found, and how it is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Cli, command_line, process, process_env

HIT_KEYS = {"rank", "score", "id", "modality", "path", "key", "title", "part", "copies", "attributes"}
PART_KEYS = {"id", "modality", "ordinal", "start", "end", "page", "text", "source"}


def names(cli: Cli, *arguments: object) -> list[str]:
    """The file names that a search finds."""
    ran = cli("search", *arguments, "--json")
    assert ran.code == 0, ran.err
    return [Path(record["path"]).name for record in ran.records()]


def id_of(cli: Cli, name: str) -> int:
    (found,) = [r["id"] for r in cli("search", "red", "--json").records() if r["path"].endswith(name)]
    assert isinstance(found, int)
    return found


def test_words_find_the_picture_they_describe(cli: Cli) -> None:
    for colour in ("red", "green", "blue"):
        assert names(cli, "a", colour, "thing", "--modality", "image")[0].startswith((colour, "copy"))


def test_words_find_the_part_of_a_text_that_says_it(cli: Cli, photos: Path) -> None:
    (hit,) = cli("search", "green", "--modality", "text", "--json").records()
    assert hit["path"] == str(photos / "notes.md")
    assert "green" in hit["part"]["text"]


def test_a_picture_finds_its_like(cli: Cli, photos: Path) -> None:
    assert names(cli, "--image", photos / "blue.png")[0] == "blue.png"


def test_an_item_finds_others_and_not_itself(cli: Cli) -> None:
    found = names(cli, "--like", id_of(cli, "/red.png"), "--modality", "image")
    assert found[0] == "a\nb \x1b[31m.png"
    assert "red.png" not in found


def test_terms_add_up_with_their_weights(cli: Cli) -> None:
    pictures = ("--modality", "image", "-k", "1")
    assert names(cli, "red", "--add", "5:blue", *pictures) == ["blue.png"]
    assert names(cli, "green", "--add", "0.2:blue", "--subtract", "0.2:white", *pictures)[0] in {
        "green.png",
        "copy.png",
    }
    assert names(cli, "white", *pictures) == ["white.png"]
    assert names(cli, "white", "--subtract", "green", "--subtract", "blue", *pictures)[0] not in {
        "white.png",
        "blue.png",
    }


def test_filters_and_globs_limit_what_is_found(cli: Cli) -> None:
    assert names(cli, "red", "--where", "width = 64") == ["a\nb \x1b[31m.png"]
    assert set(names(cli, "red", "--path", "*/sub/*")) == {"a\nb \x1b[31m.png", "copy.png"}
    assert names(cli, "red", "--modality", "text") == ["notes.md"]
    assert len(names(cli, "red", "-k", "2")) == 2
    assert names(cli, "red", "--min-score", "0.99") == ["red.png"]


def test_hybrid_ranks_texts_by_their_words_too(cli: Cli) -> None:
    assert names(cli, "stood", "--hybrid")[0] == "notes.md"


def test_json_is_one_object_a_line_with_every_field(cli: Cli, photos: Path) -> None:
    ran = cli("search", "red", "--json")
    records = ran.records()
    assert len(records) == len(ran.stdout.splitlines()) == 6
    for rank, record in enumerate(records, start=1):
        assert set(record) == HIT_KEYS
        assert set(record["part"]) == PART_KEYS
        assert record["rank"] == rank
        assert record["modality"] == record["part"]["modality"]
        assert record["attributes"].get("width") in (32, 64, None)
    assert [r["score"] for r in records] == sorted((r["score"] for r in records), reverse=True)
    (red,) = [r for r in records if r["path"] == str(photos / "red.png")]
    assert red["score"] == pytest.approx(1.0, abs=1e-3)
    (green,) = [r for r in records if "green.png" in r["path"] or "copy.png" in r["path"]]
    assert {green["path"], *green["copies"]} == {str(photos / "green.png"), str(photos / "sub" / "copy.png")}


def test_paths_are_raw_and_minus_0_ends_each_by_a_nul(cli: Cli, photos: Path) -> None:
    lines = cli("search", "red", "--paths", "-k", "2").stdout
    nuls = cli("search", "red", "-0", "-k", "2").stdout
    paths = [os.fsencode(photos / "red.png"), os.fsencode(photos / "sub" / "a\nb \x1b[31m.png")]
    assert lines == b"\n".join(paths) + b"\n"
    assert nuls == b"\0".join(paths) + b"\0"
    assert all(Path(os.fsdecode(path)).is_file() for path in nuls.split(b"\0") if path)


def test_plain_output_is_one_safe_line_a_hit(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    lines = cli("search", "red").out.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"1  1\.000  \d+  red\.png", lines[0])
    assert r"sub/a\nb \x1b[31m.png" in lines[1]
    assert any('notes.md    "The red car stood there.' in line for line in lines)
    assert any(line.endswith("+1 same") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_nothing_found_is_said_and_no_failure(cli: Cli) -> None:
    for arguments in (["--min-score", "2"], ["--path", "/nowhere/*"]):
        ran = cli("search", "red", *arguments)
        assert (ran.code, ran.stdout) == (0, b"")
        assert ran.err.startswith("mmsearch: nothing matches")


def test_an_empty_collection_is_told_from_one_without_a_match(cli: Cli, model: Path) -> None:
    assert cli("collections", "create", "new", "--model", model).code == 0
    ran = cli("search", "red", "--collection", "new")
    assert (ran.code, ran.stdout) == (0, b"")
    assert "is empty" in ran.err


def test_a_best_score_below_the_models_own_level_is_doubted_on_stderr(cli: Cli) -> None:
    ran = cli("search", "zebra", "--json")
    assert ran.records()
    assert "perhaps nothing matches" in ran.err
    for certain in (["red"], ["zebra", "--add", "red"], ["zebra", "--hybrid"]):
        assert cli("search", *certain, "--json").err == ""


def test_a_search_in_a_process_of_its_own_loads_no_torch_and_little_else(home: Path) -> None:
    """The process ends by os._exit, so it looks at itself from the last thing it does: writing its output."""
    code = """
import sys
from mmsearch.cli import text, main
def spy(chunks):
    print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
text.write_bytes = spy
sys.argv = ["mmsearch", "search", "red", "--json"]
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=process_env(), cwd=ROOT, capture_output=True, check=True, text=True
    )
    loaded = set(ran.stdout.split())
    assert {"numpy", "onnxruntime", "mmsearch"} <= loaded
    pictures_and_sounds = {"PIL", "soundfile", "soxr", "av", "faster_whisper"}
    others = {"torch", "alembic", "rich", "lark", "pypdf", "pyarrow", "indexer", "transformers"}
    assert not loaded & (pictures_and_sounds | others)


def test_help_loads_neither_numpy_nor_the_engine() -> None:
    code = """
import sys
from mmsearch.cli import run
run(["--help"])
print("LOADED", *(name for name in sys.modules if name.split(".")[0] in {"numpy", "sqlalchemy", "onnxruntime"}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=process_env(), cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == "LOADED"


def test_output_that_nobody_reads_on_is_no_error(home: Path) -> None:
    with subprocess.Popen(
        command_line("search", "red", "--json"),
        env=process_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""


def test_output_to_a_full_disk_is_an_error(home: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for form in ("--json", "--paths"):
        with Path("/dev/full").open("wb") as full:
            ran = subprocess.run(
                command_line("search", "red", form),
                env=process_env(),
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                text=True,
            )
        assert ran.returncode == 4
        assert ran.stderr == "mmsearch: No space left on device: free some space and run it again\n"


def test_names_that_are_no_text_encoding_survive_ascii_surroundings(home: Path) -> None:
    ran = process("search", "red", "--json", "-k", "1")
    assert json.loads(ran.stdout)["rank"] == 1
