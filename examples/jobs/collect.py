"""collect.py ARCHIVE: a table of all points of the scan, from the merged archive of the task."""

from __future__ import annotations

import json
import sys
import zipfile


def collect(archive: str) -> list[dict[str, float]]:
    """The results of the jobs that finished, in the order of the jobs."""
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.endswith("/lyapunov.json")]
        return [json.loads(files.read(name)) for name in names]


if __name__ == "__main__":
    for point in collect(sys.argv[1]):
        print(f"{point['r']:.4f} {point['lyapunov']:+.4f}")
