"""A text query from a cold process on 10,000 photos, beside rclip on its own 10,000, in turns.

    python -m benchmarks.cold_query DATA WORK

Both answer ten photos to captions of the data folder. rclip's database is filled with random vectors (its query
takes as long whatever their values). The files are in the page cache: what is cold is the process. ``where`` says
what our time is spent on, in a process of its own.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure, photos
from benchmarks.index_speed import MMSEARCH, index
from benchmarks.peer import Rclip

PAIRS = 15

STAGES = """
import time
marks, last = {}, time.perf_counter()
def mark(name):
    global last
    now = time.perf_counter()
    marks[name] = round((now - last) * 1000, 1)
    last = now
import sys
home, words = sys.argv[1:]
import numpy; mark("import numpy")
from mmsearch import Engine; mark("import mmsearch")
engine = Engine.open(home, create=False); mark("open the catalog")
encoder = engine.encoder; mark("read the model folder")
encoder.encode_texts(["warm"]); mark("load the text tower")
encoder.encode_texts([words]); mark("encode the query")
import faiss; mark("import faiss")
engine.search(words); mark("read the index and search")
engine.search(words); mark("search again")
import json; print(json.dumps(marks))
"""


def catalog_of_10k(data: Path, work: Path) -> Path:
    """The home with all of ``photos10k`` indexed; a home that is there is brought up to date."""
    home = work / "home10k"
    _, report = index(photos.folder(data, work, "photos10k"), home)
    assert not report["skipped"], report["skipped"][:3]
    return home


def search(home: Path, words: str) -> measure.Cost:
    """``mmsearch search`` as a child."""
    return measure.run([*MMSEARCH, "search", words, "--home", home, "--json"])


def where_the_time_goes(home: Path, words: str) -> dict[str, Any]:
    """Milliseconds of the steps of a search done one after the other, and the slowest imports of the command."""
    runs = [json.loads(measure.run([sys.executable, "-c", STAGES, home, words]).output) for _ in range(5)]
    stages = {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}
    command = [
        sys.executable,
        "-X",
        "importtime",
        *MMSEARCH[1:],
        "search",
        words,
        "--home",
        str(home),
        "--json",
    ]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    lines = re.findall(r"import time:\s+\d+ \|\s+(\d+) \| ( *)(\S+)", listing)
    slowest = sorted(((int(us) / 1000, name) for us, indent, name in lines), reverse=True)[:12]
    empty = statistics.median(measure.run([sys.executable, "-c", ""]).wall_s for _ in range(5))
    return {
        "python_alone_ms": round(empty * 1000, 1),
        "steps_ms": stages,
        "imports_ms": {name: round(ms, 1) for ms, name in slowest},
    }


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    home, folder = catalog_of_10k(data, work), photos.folder(data, work, "photos10k")
    rclip = Rclip(work, "cold-query-data")
    rclip.fill(folder)
    words = photos.captions(data)
    for warm_up in (search(home, words[0]), rclip.query(folder, words[0])):
        assert len(warm_up.output.splitlines()) >= 10
    pairs = [(search(home, text), rclip.query(folder, text)) for text in words[1 : PAIRS + 1]]
    ours, theirs = zip(*pairs, strict=True)
    result = {
        "items": len(list(folder.iterdir())),
        "pairs": PAIRS,
        "query_s": round(statistics.median(cost.wall_s for cost in ours), 3),
        "rclip_query_s": round(statistics.median(cost.wall_s for cost in theirs), 3),
        "share_of_rclip": round(statistics.median(a.wall_s / b.wall_s for a, b in pairs), 2),
        "cpu_s": round(statistics.median(cost.cpu_s for cost in ours), 3),
        "rclip_cpu_s": round(statistics.median(cost.cpu_s for cost in theirs), 3),
        "rss_mb": round(max(cost.rss_mb for cost in ours)),
        "rclip_rss_mb": round(max(cost.rss_mb for cost in theirs)),
        "where": where_the_time_goes(home, words[-1]),
    }
    measure.report("cold_query", result, work)


if __name__ == "__main__":
    main()
