"""The soak of the server runs: its figures are for `make soak`, here for a moment only."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.conftest import process_env

# Not imported: it patches half of the standard library.
pytestmark = pytest.mark.skipif(find_spec("locust") is None, reason="locust is not installed")


def test_a_short_soak_answers_everything_and_tells_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.shop_soak", str(tmp_path / "work")]
    done = subprocess.run(
        [*command, "--seconds", "20", "--products", "60"],
        cwd=Path(__file__).parents[2],
        env=process_env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["requests"] == 20 * (10 + 10)
    assert (told["errors"], told["unanswered"]) == (0, 0), done.stderr
    assert [one["count"] for one in told["fifths"]] == [40] * 5
    assert told["rss_end_mb"] > 20
    assert json.loads((tmp_path / "work" / "results" / "shop_soak.json").read_text()) == told
