"""How fast traces are read: a million jobs in each format, made here.

Run: ``.venv/bin/python -m tests.benchmarks.bench_reading [JOBS]``
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.reading.formats import TraceFormat

EPOCH = 1_700_000_000
HEADS = {
    TraceFormat.SWF: "; UnixStartTime: 1700000000\n; MaxNodes: 128\n; MaxProcs: 8192\n",
    TraceFormat.ALCF: ",job,user,node_num,submit_time,wait_time,run_time,wall_time\n",
    TraceFormat.SLURM: "JobID|Submit|Start|End|Elapsed|Timelimit|AllocNodes|NNodes|State|Partition\n",
    TraceFormat.PBS: "",
}


def clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def date(seconds: int) -> str:
    return datetime.fromtimestamp(EPOCH + seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


def line(known: TraceFormat, job: int, submit: int, wait: int, run: int, limit: int, nodes: int) -> str:
    start, end = submit + wait, submit + wait + run
    match known:
        case TraceFormat.SWF:
            procs = 64 * nodes
            return f"{job} {submit} {wait} {run} {procs} -1 -1 {procs} {limit} -1 1 3 4 -1 1 -1 -1 -1\n"
        case TraceFormat.ALCF:
            return f"{job},{job},7.0,{nodes}.0,{EPOCH + submit},{wait},{run}.25,{limit}.0\n"
        case TraceFormat.SLURM:
            return (
                f"{job}|{date(submit)}|{date(start)}|{date(end)}|{clock(run)}|{clock(limit)}|{nodes}|{nodes}"
                "|COMPLETED|batch\n"
            )
        case TraceFormat.PBS:
            hosts = "+".join(f"n{n}/0*8" for n in range(min(nodes, 4)))
            return (
                f"04/01/2026 12:00:00;E;{job}.pbs;user=u group=g jobname=STDIN queue=workq ctime={EPOCH + submit} "
                f"qtime={EPOCH + submit} etime={EPOCH + submit} start={EPOCH + start} exec_host={hosts} "
                f"Resource_List.nodect={nodes} Resource_List.walltime={clock(limit)} session=1 end={EPOCH + end} "
                f"Exit_status=0 resources_used.cput=00:00:00 resources_used.walltime={clock(run)} run_count=1\n"
            )


def jobs(count: int) -> Iterator[tuple[int, ...]]:
    rng = np.random.default_rng(1)
    submit = np.cumsum(rng.integers(0, 60, count))
    wait, run, more = rng.integers(1, 10_000, (3, count))
    columns = (np.arange(count), submit, wait, run, run + more, rng.integers(1, 128, count))
    return zip(*(c.tolist() for c in columns), strict=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        for known in TraceFormat:
            path = Path(folder) / known
            with path.open("w") as file:
                file.write(HEADS[known])
                file.writelines(line(known, *job) for job in jobs(count))
            wall, cpu = time.perf_counter(), time.process_time()
            trace = read_trace(path, nodes=128)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            size = path.stat().st_size / 2**20
            print(
                f"{known:6} {len(trace):>9,} jobs {size:6.0f} MiB  {wall:5.1f} s, {cpu:5.1f} s of a core",
                flush=True,
            )
            path.unlink()


if __name__ == "__main__":
    main()
