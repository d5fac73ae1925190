"""Run every benchmark: ``python -m benchmarks DATA WORK`` (``make bench DATA=folder``).

Each prints one JSON line and leaves it in WORK/results. It takes about three quarters of an hour on two
cores, most of it for rclip, for encoding 15,000 photos once, and for the loads of the server.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import (
    cold_query,
    index_speed,
    measure,
    mixed_list,
    reindex,
    scale,
    shop_load,
    shop_relevance,
    vit_folder,
)

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    measure.report("machine", measure.machine(), Path(sys.argv[2]))
    for benchmark in (
        scale,
        reindex,
        cold_query,
        index_speed,
        vit_folder,
        mixed_list,
        shop_relevance,
        shop_load,
    ):
        benchmark.main()
