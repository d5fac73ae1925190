"""``mmsearch migrate`` and the refusals that lead to it, as a user sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.colour_model import save_colour_model
from tests.e2e.conftest import Cli, command_line, process_env
from tests.oracle import directions

TURN = (np.eye(4, 6) + 0.1 * np.random.default_rng(8).normal(size=(4, 6))).astype(np.float32)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_colour_model(tmp_path_factory.mktemp("models") / "new", space="new-1", turn=TURN)


def found(cli: Cli, *arguments: object) -> list[tuple[int, float]]:
    ran = cli("search", "green", "--json", *arguments)
    assert ran.code == 0, ran.err
    return [(record["id"], record["score"]) for record in ran.records()]


def test_there_and_back_and_done(cli: Cli, new: Path, model: Path) -> None:
    before = found(cli)
    assert cli("migrate", "--status").out == "collection 'default' is not being migrated\n"

    ran = cli("migrate", "--model", new)
    assert ran.code == 0, ran.err
    assert "7 items of 'default' now have vectors of" in ran.out
    assert "--rollback" in ran.out
    assert "the catalog grows by about" in ran.err
    there = found(cli)
    assert len(there) == len(before)  # of two copies either may stand for both
    assert there != before
    assert str(new) in cli("status").out
    (listed,) = cli("collections", "list").out.splitlines()
    assert listed.endswith(f"7 items  {new} (and vectors of {model}, see `migrate --status`)")
    shown = cli("migrate", "default", "--status").out
    assert "former model" in shown
    assert "7 of 7 items" in shown

    assert cli("migrate", "--rollback").code == 0
    assert found(cli) == before
    assert cli("migrate", "--model", new, "--json").records()[0]["encoded"] == 0
    assert found(cli) == there

    ran = cli("migrate", "--finish", "--yes")
    assert "deleted the vectors of" in ran.out
    assert found(cli) == there
    ran = cli("migrate", "--rollback")
    assert (ran.code, "no former vectors" in ran.err) == (2, True)
    assert "not being migrated" in cli("migrate", "--finish").err
    assert cli("check").out == "everything agrees\n"


def test_the_report_and_the_status_as_json(cli: Cli, new: Path) -> None:
    (report,) = cli("migrate", "--model", new, "--json").records()
    assert (report["collection"], report["model"], report["items"]) == ("default", str(new), 7)
    assert report["copied"] == 1
    assert (report["mapped"], report["quality"]) == ([], {})
    (status,) = cli("migrate", "--status", "--json").records()
    assert status["migration"] == {
        "model": json.loads(cli("migrate", "--status", "--json").out)["migration"]["model"],
        "space": "colours-1",
        "dim": 4,
        "switched": True,
        "done": 7,
        "mapped": 0,
        "total": 7,
    }
    (finished,) = cli("migrate", "--finish", "--yes", "--json").records()
    assert finished["deleted"] == 7


def test_files_that_are_gone_are_named_and_nothing_is_switched(
    cli: Cli, new: Path, tmp_path: Path, photos: Path
) -> None:
    before = found(cli)
    moved = tmp_path / "red.png"
    os.rename(photos / "red.png", moved)
    try:
        ran = cli("migrate", "--model", new)
        assert ran.code == 4
        assert f"{photos / 'red.png'}: no such file" in ran.err
        assert "--map-vanished" in ran.err
        assert found(cli) == before
        (refused,) = cli("migrate", "--json").records()
        assert set(refused["refused"]) == {str(photos / "red.png")}
        shown = cli("migrate", "--status").out
        assert "new model" in shown
        assert "6 of 7 items" in shown
        ran = cli("migrate", "--map-vanished")
        assert (ran.code, "takes 200 parts" in ran.err) == (4, True)
    finally:
        os.rename(moved, photos / "red.png")
    ran = cli("migrate")
    assert ran.code == 0, ran.err
    assert " 1 encoded" in ran.out
    assert found(cli) != before


def test_another_checkpoint_is_refused_and_the_command_that_is_named_helps(cli: Cli, tmp_path: Path) -> None:
    turn = np.linalg.qr(directions(4, 4, seed=5))[0].astype(np.float32)
    other = save_colour_model(tmp_path / "other", turn=turn)
    ran = cli("search", "red", "--model", other)
    assert ran.code == 4
    command = ran.err.split("`")[1]
    assert command == f"mmsearch migrate default --model {other}"
    assert cli(*command.split()[1:]).code == 0
    assert cli("search", "red", "--model", other, "--paths").out.splitlines()[0].endswith("red.png")


def test_what_makes_no_sense_is_a_wrong_flag(cli: Cli, new: Path, model: Path) -> None:
    for arguments in (
        ["--model", new, "--rollback"],
        ["--status", "--finish"],
        [],
        ["--model", model],
    ):
        ran = cli("migrate", *arguments)
        assert ran.code == 2, arguments
        assert "Traceback" not in ran.err
    assert cli("migrate", "nowhere", "--model", new).code == 4
    assert cli("migrate", "--model", "no/such/model").code == 5


def test_it_can_be_interrupted_and_goes_on(cli: Cli, home: Path, new: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    slow = (
        "import itertools, os, sys, time, indexer.counterparts as c, mmsearch.cli\n"
        "plain, count = c.Counterparts.__call__, itertools.count()\n"
        "def call(self, item):\n"
        "    while next(count) > 1 and os.path.exists(sys.argv[-1]):\n"
        "        time.sleep(0.02)\n"
        "    return plain(self, item)\n"
        "c.Counterparts.__call__ = call\n"
        "import indexer.migrate as m\n"
        "m.COMMIT_SECONDS = 0\n"
        "sys.exit(mmsearch.cli.run(sys.argv[1:-1]))\n"
    )
    command = [command_line()[0], "-c", slow, "migrate", "--model", str(new), str(held)]
    child = subprocess.Popen(command, env=process_env(), stderr=subprocess.PIPE, text=True)
    while "1 of 7" not in cli("migrate", "--status").out and "2 of 7" not in cli("migrate", "--status").out:
        assert child.poll() is None
        time.sleep(0.05)
    assert found(cli), "searched meanwhile"
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    held.unlink()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "what was committed is kept" in errors
    (report,) = cli("migrate", "--json").records()
    assert 0 < report["encoded"] < 7
    assert report["items"] == 7
