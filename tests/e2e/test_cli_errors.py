"""What a user does wrong: one line that says what, which and what to do, and the exit code of its kind."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

import mmsearch.cli
from mmsearch.database import Database
from mmsearch.engine import Engine
from mmsearch.errors import MmsearchError
from tests.colour_model import save_colour_model
from tests.e2e.conftest import Cli, Ran, command_line, in_process, ordinary_user, process, process_env


def complaint(ran: Ran) -> str:
    """The one line on stderr."""
    assert "Traceback" not in ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith("mmsearch: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["search"], 2, ["the query is empty", "--image"]),
        (["search", "  "], 2, ["the query is empty"]),
        (["search", "--subtract", "red"], 2, ["beside --subtract"]),
        (["search", "red", "--add", "0:blue"], 2, ["'0:blue'", "above 0"]),
        (["search", "red", "--where", "width >"], 2, ["bad filter", "width >"]),
        (["search", "red", "--where", "widht > 1"], 2, ["widht", "did you mean width"]),
        (["search", "red", "--where", "width = 'wide'"], 2, ["width"]),
        (["search", "red", "--json", "--paths"], 2, ["one of --json"]),
        (["search", "red", "--preview"], 2, ["--preview"]),
        (["search", "--image", "missing.jpg"], 3, ["missing.jpg", "no such file"]),
        (["search", "--image", "."], 3, ["is a folder"]),
        (["search", "--like", "999"], 4, ["999"]),
        (["search", "red", "--collection", "nope"], 4, ["'nope'", "default"]),
        (["search", "red", "--home", "nowhere"], 4, ["no catalog in nowhere", "mmsearch index FOLDER"]),
        (["search", "red", "--model", "no-such-model"], 5, ["no-such-model", "mini"]),
        (["show", "999"], 4, ["999"]),
        (["remove"], 2, ["remove what?"]),
        (["remove", "999", "--yes"], 4, ["999"]),
        (["remove", "missing.jpg", "--yes"], 4, ["missing.jpg"]),
        (["index", "missing-folder"], 3, ["missing-folder", "no such file or folder"]),
        (["index", "missing-folder", "--home", "nowhere"], 3, ["missing-folder", "no such file or folder"]),
        (["index", "--home", "nowhere"], 4, ["no catalog in nowhere"]),
        (["collections", "delete", "nope", "--yes"], 4, ["'nope'"]),
        (["collections", "create", "default"], 4, ["'default'", "already"]),
        (["models", "show", "nope"], 5, ["nope", "no such model"]),
        (["models", "verify", "nope"], 5, ["nope", "no such model"]),
        (["export", "file.txt"], 2, ["file.txt", "--format"]),
        (["import", "missing.jsonl"], 3, ["missing.jsonl", "no such file"]),
        (["status", "--threads", "2"], 2, ["--threads"]),
        (["serve", "--port", "0", "--allow-origin", "*"], 2, ["--allow-origin *", "https://shop.example"]),
        (["serve", "--port", "0", "--allow-origin", "https://a.example/"], 2, ["without a path"]),
        (["serve", "--port", "0", "--allow-origin", "a.example"], 2, ["https://shop.example"]),
        (
            ["serve", "--port", "0", "--allow-host", "https://a.example"],
            2,
            ["--allow-host", "the name alone"],
        ),
        (["serve", "--port", "0", "--allow-host", "a.example:443"], 2, ["no scheme or port"]),
        (["serve", "--port", "0", "--host", "0.0.0.0"], 2, ["--host 0.0.0.0", "mmsearch keys create"]),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_exit_code(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(*arguments)
    assert ran.code == code
    assert ran.stdout == b""
    if "--threads" not in arguments:  # usage errors are drawn by typer
        complaint(ran)
    for word in words:
        assert word in ran.err
    assert not (tmp_path / "nowhere").exists()


def test_every_error_has_a_class_with_an_exit_code_of_its_own_kind() -> None:
    def below(kind: type[MmsearchError]) -> Iterator[type[MmsearchError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    assert {kind.exit_code for kind in below(MmsearchError)} == {1, 2, 3, 4, 5}


def png(width: int, height: int) -> bytes:
    """A valid PNG of black pixels that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "bad"
    folder.mkdir()
    files = {name: folder / f"{name}.png" for name in ("zero", "garbage", "cut", "bomb", "closed")}
    files["zero"].touch()
    files["garbage"].write_bytes(b"\x00\x01 no picture at all")
    PIL.Image.effect_noise((64, 64), 50).save(files["cut"])
    files["cut"].write_bytes(files["cut"].read_bytes()[:-900])
    files["bomb"].write_bytes(png(20_000, 20_000))
    PIL.Image.new("RGB", (8, 8)).save(files["closed"])
    return files


REASONS = {
    "zero": "zero bytes",
    "garbage": "not a picture",
    "cut": "cut short",
    "bomb": "400 megapixels",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_bad_picture_as_query_is_told_with_its_reason(
    cli: Cli, bad_files: dict[str, Path], name: str
) -> None:
    ran = cli("search", "--image", bad_files[name])
    assert ran.code == 3
    assert str(bad_files[name]) in complaint(ran)
    assert REASONS[name] in ran.err


def test_bad_pictures_are_skipped_with_their_reasons_and_the_rest_is_indexed(
    cli: Cli, bad_files: dict[str, Path], photos: Path
) -> None:
    bad_files["closed"].unlink()
    (report,) = cli("index", photos, bad_files["zero"].parent, "--json").records()
    skipped = {line["path"]: line["reason"] for line in report["skipped"]}
    for name, reason in REASONS.items():
        assert reason in skipped[str(bad_files[name])]
    ran = cli("index", bad_files["zero"].parent, "--collection", "default")
    assert ran.code == 0
    assert ran.out.count("skipped  ") == len(REASONS)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings folder that an ordinary user can look into."""
    folder = tmp_path / "settings"
    folder.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


def test_a_file_without_the_right_to_read_it_is_told(
    cli: Cli, home: Path, model: Path, settings: Path, bad_files: dict[str, Path]
) -> None:
    closed = bad_files["closed"]
    assert cli("search", "--image", closed).code == 0  # imports all that is needed
    closed.chmod(0)
    with ordinary_user(home, model, settings, closed.parent):
        ran = cli("search", "--image", closed)
    assert ran.code == 3
    assert "not be read" in complaint(ran) or "ermission" in ran.err


def test_a_read_only_home_can_be_searched_and_says_that_it_cannot_be_written(
    cli: Cli, home: Path, model: Path, settings: Path, photos: Path
) -> None:
    assert cli("search", "red").code == 0
    assert cli("index", "--json").code == 0
    for path in home.iterdir():
        path.chmod(0o444)
    home.chmod(0o555)
    with ordinary_user(home, model, settings, photos):
        found = cli("search", "red", "--paths", "-k", "1")
        refused = [
            cli("remove", "1", "--yes"),
            cli("index"),
            cli("index", photos, "--home", home / "deeper", "--model", model),
            cli("collections", "create", "x", "--model", model),
        ]
    home.chmod(0o755)
    assert (found.code, found.stdout) == (0, os.fsencode(photos / "red.png") + b"\n"), found.err
    for ran in refused:
        assert ran.code == 4
        assert any(word in complaint(ran) for word in ("read-only", "not writable", "ermission denied")), (
            ran.err
        )


def test_a_disk_that_fills_up_is_told_and_what_was_committed_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "many"
    photos.mkdir()
    for n in range(300):
        PIL.Image.new("RGB", (8, 8), (n % 256, n // 2, 7)).save(photos / f"{n}.png")
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    limit = 330_000  # bytes of one file: the catalog cannot grow beyond
    ran = process(
        "index",
        photos,
        "--model",
        model,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ran.code == 4
    assert "disk" in complaint(ran)
    again = in_process("index", photos, "--model", model)
    assert again.code == 0, again.err
    assert in_process("check").code == 0


def test_a_catalog_of_a_newer_schema_is_refused(cli: Cli, home: Path) -> None:
    with sqlite3.connect(home / "catalog.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for arguments in (["search", "red"], ["index"], ["status"]):
        ran = cli(*arguments)
        assert ran.code == 4
        assert "newer" in complaint(ran)


def test_a_catalog_that_is_none_is_refused(cli: Cli, home: Path) -> None:
    for path in home.iterdir():
        path.unlink()
    (home / "catalog.db").write_bytes(b"this is no database" * 100)
    ran = cli("search", "red")
    assert ran.code == 4
    assert str(home / "catalog.db") in complaint(ran)


def test_a_model_of_another_space_is_refused(cli: Cli, tmp_path: Path, photos: Path) -> None:
    other = save_colour_model(tmp_path / "other", space="other-space")
    for arguments in (["search", "red", "--model", other], ["index", photos, "--model", other]):
        ran = cli(*arguments)
        assert ran.code == 4
        assert "other-space" in complaint(ran)
        assert "colours-1" in ran.err


def test_a_damaged_model_is_an_error_of_the_model(cli: Cli, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "text.onnx").write_bytes(b"no graph")
    ran = cli("search", "red", "--model", broken)
    assert ran.code == 5
    assert "text.onnx" in complaint(ran)
    verified = cli("models", "verify", broken)
    assert verified.code == 5
    assert "text.onnx" in verified.out


def test_more_than_half_gone_is_refused_without_prune(model: Path, tmp_path: Path, cli: Cli) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(4):
        PIL.Image.new("RGB", (8, 8), (n, 0, 0)).save(photos / f"{n}.png")
    assert cli("index", photos, "--collection", "some", "--model", model).code == 0
    shutil.rmtree(photos)
    refused = cli("index", "--collection", "some")
    assert refused.code == 4
    assert "--prune" in complaint(refused)
    assert cli("index", "--prune", "--collection", "some", "--json").records()[0]["removed"] == 4


@pytest.mark.parametrize("variable", ["MMSEARCH_THREADS", "MMSEARCH_DEVICE"])
def test_a_wrong_variable_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "many")
    ran = cli("search", "red")
    assert ran.code == 2
    assert variable in complaint(ran)


def test_a_wrong_line_of_the_settings_file_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("colection = 'x'\n")
    monkeypatch.setenv("MMSEARCH_CONFIG", str(settings))
    ran = cli("search", "red")
    assert ran.code == 2
    assert str(settings) in complaint(ran)


def test_another_writer_is_named(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = Database._process_lock
    monkeypatch.setattr(Database, "_process_lock", lambda self, _, what: patient(self, 0.05, what))
    with Engine.open(home, create=False) as other, other.writing(what="a long job"):
        ran = cli("remove", "1", "--yes")
    assert ran.code == 4
    assert f"{os.getpid()}" in complaint(ran)
    assert "a long job" in ran.err


def test_interrupting_ends_with_130_and_keeps_what_was_committed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "many"
    photos.mkdir()
    for n in range(600):
        PIL.Image.new("RGB", (8, 8), (n % 256, n // 256, 7)).save(photos / f"{n}.png")
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    with subprocess.Popen(
        command_line("index", photos, "--model", model), env=process_env(), stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None and not committed(tmp_path / "home" / "catalog.db"):
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        err = running.stderr.read()
    assert running.returncode == 130
    assert err.splitlines()[-1] == "mmsearch: interrupted; what was committed is kept"
    assert "Traceback" not in err
    assert in_process("status", "--json").records()[0]["items"] > 0


def committed(catalog: Path) -> int:
    """The number of items that another process has committed so far."""
    if not catalog.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as database:
        try:
            (count,) = database.execute("SELECT count(*) FROM items").fetchone()
        except sqlite3.OperationalError:  # the tables are being made
            return 0
    assert isinstance(count, int)
    return count


def test_a_bug_shows_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.cli.query.build_query", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("search", "red")


def test_an_error_of_the_disk_that_is_a_bug_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "inner.py")

    monkeypatch.setattr("mmsearch.cli.app.app", broken)
    with pytest.raises(FileNotFoundError):
        mmsearch.cli.run(["status"])


def test_a_collection_of_an_older_version_of_its_model_says_how_to_go_on(home: Path, cli: Cli) -> None:
    with contextlib.closing(sqlite3.connect(home / "catalog.db")) as catalog, catalog:
        catalog.execute("UPDATE collections SET space = 'colours-0'")
    ran = cli("search", "red")
    assert ran.code == 4
    line = complaint(ran)
    assert "'colours-0'" in line
    command = line.split("`")[1]
    assert command.startswith("mmsearch migrate default --model ")
    assert cli(*command.split()[1:]).code == 0
    assert cli("search", "red", "--paths").out.splitlines()[0].endswith("red.png")
