"""Looking over 10,000 unchanged files again, and what an item costs on disk.

    python -m benchmarks.reindex DATA WORK

Bytes per item are those of the whole home (catalog, its log, vector index) divided by the items in it.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks import measure, photos
from benchmarks.cold_query import catalog_of_10k
from benchmarks.index_speed import index

ROUNDS = 5


def bytes_below(home: Path) -> int:
    """Bytes of all files below ``home``."""
    return sum(file.stat().st_size for file in home.rglob("*") if file.is_file())


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    home = catalog_of_10k(data, work)
    folder = photos.folder(data, work, "photos10k")
    count = len(list(folder.iterdir()))
    runs = [index(folder, home) for _ in range(ROUNDS)]
    assert all(report["unchanged"] == count for _, report in runs), runs[-1][1]
    result = {
        "files": count,
        "reindex_s": round(statistics.median(cost.wall_s for cost, _ in runs), 3),
        "reindex_cpu_s": round(statistics.median(cost.cpu_s for cost, _ in runs), 3),
        "rss_mb": round(max(cost.rss_mb for cost, _ in runs)),
        "seconds": runs[-1][1]["seconds"],
        "bytes_per_item": round(bytes_below(home) / count),
        "files_bytes": {
            str(file.relative_to(home)): file.stat().st_size for file in home.rglob("*") if file.is_file()
        },
    }
    measure.report("reindex", result, work)


if __name__ == "__main__":
    main()
