"""How fast photos are indexed and how much memory it takes, beside rclip, in turns on the same photos.

    python -m benchmarks.index_speed DATA WORK [FOLDER...]

FOLDER is one or more of photos500 (default), photos12mp (default) and photos; see ``benchmarks.photos``. Each run is
a whole process into an empty home: starting up, decoding, encoding, committing and saving the vector index. rclip
cannot index without answering a query, so the cost of a query alone is taken off its run. ``times_rclip`` takes nothing
off ours; ``times_rclip_without_start`` takes off a run that finds nothing new, as it does for rclip.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure, photos
from benchmarks.peer import Rclip

ROUNDS = 2
MMSEARCH = (sys.executable, "-m", "mmsearch")


def index(folder: Path, home: Path) -> tuple[measure.Cost, dict[str, Any]]:
    """``mmsearch index`` as a child: what it cost and its report."""
    cost = measure.run([*MMSEARCH, "index", folder, "--home", home, "--json"])
    report: dict[str, Any] = json.loads(cost.output)
    return cost, report


def compare(folder: Path, work: Path) -> dict[str, Any]:
    """Index ``folder`` with both, ``ROUNDS`` times in turn."""
    rclip = Rclip(work)
    rclip.forget()
    asked = min((rclip.query(folder, "a dog") for _ in range(3)), key=lambda cost: cost.wall_s)
    count = len(list(folder.iterdir()))
    ours, starts, theirs, stages = [], [], [], []
    for _ in range(ROUNDS):
        home = work / "home-index-speed"
        shutil.rmtree(home, ignore_errors=True)
        cost, report = index(folder, home)
        assert report["added"] == count, report
        ours.append(cost)
        starts.append(index(folder, home)[0].wall_s)
        stages.append(report["seconds"])
        rclip.forget()
        theirs.append(rclip.index(folder))
    our_speed = [count / cost.wall_s for cost in ours]
    their_speed = [count / (cost.wall_s - asked.wall_s) for cost in theirs]
    our_rss, their_rss = max(cost.rss_mb for cost in ours), max(cost.rss_mb for cost in theirs)
    return {
        "photos": count,
        "rounds": ROUNDS,
        "images_per_s": round(statistics.median(our_speed), 1),
        "rclip_images_per_s": round(statistics.median(their_speed), 2),
        "times_rclip": round(
            statistics.median(a / b for a, b in zip(our_speed, their_speed, strict=True)), 1
        ),
        "times_rclip_without_start": round(
            statistics.median(
                count / (cost.wall_s - start) / speed
                for cost, start, speed in zip(ours, starts, their_speed, strict=True)
            ),
            1,
        ),
        "times_rclip_by_cpu": round(
            statistics.median((b.cpu_s - asked.cpu_s) / a.cpu_s for a, b in zip(ours, theirs, strict=True)), 1
        ),
        "cpu_ms_per_image": round(statistics.median(cost.cpu_s for cost in ours) / count * 1000, 1),
        "rss_mb": round(our_rss),
        "rclip_rss_mb": round(their_rss),
        "rss_share": round(our_rss / their_rss, 2),
        "seconds": stages[-1],
    }


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    for name in sys.argv[3:] or ("photos500", "photos12mp"):
        measure.report(f"index_speed-{name}", compare(photos.folder(data, work, name), work), work)


if __name__ == "__main__":
    main()
