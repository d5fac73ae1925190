"""Commands that index, show, change, check and carry collections."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import PIL.Image
import pytest

import mmsearch
from tests.e2e.conftest import NOTES, Cli, process

REPORT_KEYS = {
    "added",
    "updated",
    "renamed",
    "removed",
    "unchanged",
    "copies",
    "transcribed",
    "attributes_only",
    "skipped",
    "notes",
    "seconds",
    "total",
}


def items(cli: Cli) -> int:
    (status,) = cli("status", "--json").records()
    assert isinstance(status["items"], int)
    return status["items"]


def test_indexing_reports_what_it_did_and_what_it_skipped(cli: Cli, photos: Path, model: Path) -> None:
    ran = cli("index", photos, "--collection", "new", "--model", model, "--json")
    (report,) = ran.records()
    assert ran.code == 0
    assert set(report) == REPORT_KEYS
    assert (report["added"], report["copies"], report["unchanged"]) == (7, 1, 0)
    assert {Path(line["path"]).name for line in report["skipped"]} == {"broken.jpg", "empty.png"}
    assert all(line["reason"] for line in report["skipped"])
    again = cli("index", photos, "--collection", "new")
    assert again.code == 0
    assert "7 unchanged, 2 skipped" in again.out
    assert f"skipped  {photos / 'empty.png'}: " in again.out


def test_without_a_path_the_remembered_folders_are_indexed_again_with_their_globs(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (8, 8), "red" if name == "a" else "blue").save(tmp_path / name / "one.png")
    for name, glob in (("a", "left*"), ("b", "out*")):
        assert (
            cli("index", tmp_path / name, "--exclude", glob, "--collection", "new", "--model", model).code
            == 0
        )
    for name in ("left.png", "out.png"):
        for folder in ("a", "b"):
            PIL.Image.new("RGB", (9, 9), (len(name), ord(folder), 7)).save(tmp_path / folder / name)
    (report,) = cli("index", "--json", "--collection", "new").records()
    assert (report["added"], report["unchanged"]) == (2, 2)
    (report,) = cli("index", tmp_path / "a", "--json", "--collection", "new").records()
    assert (report["added"], report["unchanged"]) == (0, 2), "a folder that is named again keeps its globs"
    (report,) = cli("index", tmp_path / "a", "--exclude", "one*", "--json", "--collection", "new").records()
    assert (report["added"], report["removed"]) == (1, 1), "unless it is given new ones"


def test_only_when_nothing_could_be_indexed_is_skipping_a_failure(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.jpg").write_bytes(b"no picture")
    ran = cli("index", tmp_path / "bad", "--collection", "new", "--model", model)
    assert ran.code == 3
    assert "broken.jpg" in ran.out
    (tmp_path / "empty").mkdir()
    ran = cli("index", tmp_path / "empty", "--collection", "other", "--model", model)
    assert ran.code == 0
    assert "no pictures, texts or sounds" in ran.out


def test_changes_renames_and_removals_are_followed(cli: Cli, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(6):
        PIL.Image.new("RGB", (8, 8), (n * 20, 0, 0)).save(folder / f"{n}.png")
    assert cli("index", folder, "--collection", "new", "--model", model).code == 0
    (folder / "0.png").unlink()
    (folder / "1.png").rename(folder / "renamed.png")
    PIL.Image.new("RGB", (8, 8), "green").save(folder / "2.png")
    ran = cli("index", "--collection", "new")
    assert "1 updated, 1 renamed, 1 removed, 3 unchanged" in ran.out


def test_the_model_of_the_settings_is_for_new_collections_only(
    cli: Cli, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.colour_model import save_colour_model

    other = save_colour_model(tmp_path / "other", space="other-space")
    monkeypatch.setenv("MMSEARCH_MODEL", str(other))
    assert cli("search", "red").code == 0
    assert cli("index", photos).code == 0
    assert cli("index", photos, "--collection", "new").code == 0
    assert cli("status", "--json", "--collection", "new").records()[0]["space"] == "other-space"


def test_status_tells_what_there_is(cli: Cli, photos: Path, home: Path, model: Path) -> None:
    ran = cli("status")
    for words in (
        str(home),
        "default",
        str(model),
        "items       7",
        "6 image",
        str(photos),
        "width (number)",
    ):
        assert words in ran.out
    (record,) = cli("status", "--json").records()
    assert record["items"] == 7
    assert record["parts"]["image"] == 6
    assert record["roots"] == {str(photos): []}


def test_show_tells_everything_of_an_item(cli: Cli, photos: Path) -> None:
    (record,) = cli("search", "green", "--modality", "text", "--json").records()
    shown = cli("show", record["id"]).out
    for words in (str(photos / "notes.md"), "text", " ".join(NOTES.split()[:4])):
        assert words in shown
    (item,) = cli("show", record["id"], "--json").records()
    assert item["parts"][0]["text"].startswith("The red car")
    assert item["size"] == len(NOTES)
    first, second = cli("show", 1, 2, "--json").records()
    assert (first["id"], second["id"]) == (1, 2)


def test_remove_takes_ids_files_folders_and_filters(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    (blue,) = [r["id"] for r in cli("search", "blue", "--json", "-k", "1").records()]
    assert cli("remove", blue, "--yes").out == "removed 1 item\n"
    assert cli("remove", "red.png", "--yes").out == "removed 1 item\n"
    assert cli("remove", "sub", "--yes").out == "removed 2 items\n"
    assert cli("remove", "--where", "width = 32", "--yes").out == "removed 2 items\n"
    assert items(cli) == 1
    assert (
        cli("remove", "--where", "width = 32", "--yes").err
        == "mmsearch: nothing matches; nothing was removed\n"
    )
    assert (photos / "red.png").exists()
    assert cli("check").code == 0


def test_remove_asks_first_and_no_answer_is_no(cli: Cli, photos: Path) -> None:
    for answer in (b"n\n", b"\n", b""):
        ran = cli("remove", photos, stdin=answer)
        assert ran.code == 1
        assert "Remove 7 items from 'default'?" in ran.out
        assert str(photos / "blue.png") in ran.out
    assert items(cli) == 7
    assert cli("remove", photos, stdin=b"y\n").code == 0
    assert items(cli) == 0


def test_collections_are_listed_created_and_deleted(cli: Cli, model: Path) -> None:
    assert cli("collections", "create", "new", "--model", model).code == 0
    listed = cli("collections", "list", "--json").records()
    assert [(found["name"], found["items"]) for found in listed] == [("default", 7), ("new", 0)]
    assert "new" in cli("collections", "list").out
    assert cli("collections", "delete", "default", stdin=b"n\n").code == 1
    assert cli("collections", "delete", "default", "--yes").code == 0
    assert [found["name"] for found in cli("collections", "list", "--json").records()] == ["new"]


def test_the_table_of_models_fits_a_hundred_columns_and_marks_research_licences(cli: Cli) -> None:
    lines = cli("models", "list").out.splitlines()
    assert max(map(len, lines)) <= 110, "the notes below the table wrap by themselves"
    rows = {line.split()[0]: line for line in lines if line and "…" not in line}
    assert len(rows["clip-multilingual-h14"]) <= 100
    assert "605.1 MB" in rows["clip-b32"]
    assert "39.3" in rows["clip-b32"]
    assert rows["clip-b32"].split()[-1] == "no"
    assert "apple-amlr *" in rows["dfn-h14"]
    assert "built in" in rows["mini"]


def test_a_public_model_is_described_before_it_is_here(cli: Cli) -> None:
    shown = cli("models", "show", "dfn-h14").out
    for said in (
        "apple-amlr (for research only",
        "986,714,881",
        "COCO 55.6 at 1",
        "mmsearch models pull dfn-h14",
    ):
        assert said in shown
    (told,) = cli("models", "show", "dfn-h14", "--json").records()
    assert told["research_only"] is True
    assert told["here"] == "no"


def test_models_are_listed_shown_and_verified(cli: Cli, model: Path, tmp_path: Path) -> None:
    assert "mini" in [found["name"] for found in cli("models", "list", "--json").records()]
    shown = cli("models", "show", model).out
    for words in ("colours 1.0", "colours-1 (4 dimensions)", "image.onnx", "CC0-1.0"):
        assert words in shown
    (fields,) = cli("models", "show", model, "--json").records()
    assert fields["space"] == {"id": "colours-1", "dim": 4, "metric": "cosine"}
    assert cli("models", "verify", model).code == 0


def test_check_finds_a_damage_and_repair_mends_it(cli: Cli, home: Path) -> None:
    import sqlite3
    from contextlib import closing

    assert cli("check").out == "everything agrees\n"
    with closing(sqlite3.connect(home / "catalog.db")) as database, database:
        database.execute("DELETE FROM vectors WHERE part_id = 1")
    found = cli("check")
    assert found.code == 4
    assert "--repair" in found.err
    assert found.out
    mended = cli("check", "--repair")
    assert mended.code == 0, mended.err
    assert "mended" in mended.out
    assert cli("check").code == 0
    assert cli("index", "--json").records()[0]["added"] == 1


@pytest.mark.parametrize("name", ["file.jsonl", "file.parquet"])
def test_an_exported_collection_is_the_same_when_imported(cli: Cli, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    exported = cli("export", file)
    assert (exported.code, exported.stdout) == (0, b"")
    assert exported.err == f"mmsearch: exported 7 items to {file}\n"
    imported = cli("import", file, "--home", tmp_path / "elsewhere")
    assert imported.code == 0, imported.err
    here, there = (
        cli("search", "green", "--json", *where).records()
        for where in ([], ["--home", tmp_path / "elsewhere"])
    )
    for old, new in zip(here, there, strict=True):
        assert {**old, "id": 0, "part": 0} == {**new, "id": 0, "part": 0}
    assert cli("check", "--home", tmp_path / "elsewhere").code == 0
    assert cli("export", file).code == 2, "the file exists"
    assert cli("export", file, "--force").code == 0


def test_an_export_can_go_through_a_pipe(cli: Cli, home: Path) -> None:
    lines = cli("export", "-").stdout
    assert json.loads(lines.splitlines()[0])["mmsearch"] == "collection"
    ran = process("import", "-", "--collection", "new", input=lines)
    assert ran.code == 0, ran.err
    assert cli("status", "--json", "--collection", "new").records()[0]["items"] == 7
    damaged = process("import", "-", "--collection", "third", input=lines[:-20])
    assert damaged.code == 3
    assert "cut short" in damaged.err or "damaged" in damaged.err


def test_importing_another_space_is_refused_and_makes_no_collection(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.colour_model import save_colour_model

    other = save_colour_model(tmp_path / "other", space="other-space")
    file = tmp_path / "file.jsonl"
    assert cli("export", file).code == 0
    for where in (["--collection", "new"], ["--home", tmp_path / "elsewhere"]):
        ran = cli("import", file, "--model", other, *where)
        assert ran.code == 4
        assert "other-space" in ran.err
    assert [found["name"] for found in cli("collections", "list", "--json").records()] == ["default"]
    assert not (tmp_path / "elsewhere").exists()


def test_importing_what_was_made_with_a_model_that_is_not_here_asks_for_one(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file.jsonl"
    assert cli("export", file).code == 0
    file.write_bytes(file.read_bytes().replace(os.fsencode(model), b"/gone/model"))
    ran = cli("import", file, "--collection", "new")
    assert ran.code == 5
    assert "--model" in ran.err
    assert cli("import", file, "--collection", "new", "--model", model).code == 0


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out == f"mmsearch {mmsearch.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(home: Path, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MMSEARCH_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "mmsearch se")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", "mmsearch se")
    monkeypatch.setenv("COMP_CWORD", "1")
    ran = process()
    assert ran.code == 0, ran.err
    assert "search" in ran.out
    assert "status" not in ran.out


def test_an_old_home_is_left_alone_when_another_is_named(cli: Cli, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "copy")
    assert cli("remove", "1", "--yes", "--home", tmp_path / "copy").code == 0
    assert items(cli) == 7
