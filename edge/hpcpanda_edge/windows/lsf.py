"""Backfill windows of IBM Spectrum LSF, which computes them itself: ``bslots``; and ``bjobs`` for what it leaves out.

Formats are those of the LSF 10.1 command reference, "bslots", "bjobs -o", "bjobs -json" and "bjobs -WL"
(https://www.ibm.com/docs/en/SSWRJV_10.1.0/lsf_command_ref/bslots.1.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcpanda.domain.errors import CorruptData, Unavailable
from hpcpanda.packing.windows import MAX_SECONDS, BackfillWindow, staircase
from hpcpanda_edge.windows.commands import Answer, CallLimits, ask
from hpcpanda_edge.windows.free_nodes import Release, expected_claim

BSLOTS: Final = ("bslots",)
BJOBS: Final = ("bjobs", "-u", "all", "-json", "-o", "stat queue nreq_slot slots time_left")

_NO_WINDOW: Final = re.compile("no backfill window", re.IGNORECASE)
_NO_JOB: Final = re.compile(
    r"no (?:unfinished |matching |running |pending )*jobs? (?:is )?found", re.IGNORECASE
)
_ROW: Final = re.compile(r"\s*([0-9]{1,9})\s+(\S.*?)\s*")
_UNIT: Final = re.compile(r"([0-9]{1,9})\s*(day|hour|minute|second)s?(?:\(s\))?", re.IGNORECASE)
_UNIT_SECONDS: Final = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
_LEFT: Final = re.compile(r"([0-9]{1,7}):([0-9]{1,2})(?::[0-9]{1,2})?(?: [A-Z])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotWindow:
    """A line of bslots."""

    slots: int
    seconds: float | None
    """None: UNLIMITED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LsfJob:
    """A running or pending job."""

    running: bool
    queue: str
    slots: int
    left_s: float | None = None
    """Until it reaches its run limit, or its estimated run time."""


def parse_bslots(text: str) -> tuple[SlotWindow, ...]:
    """The table of bslots: ``15  2 hours 30 minutes``, ``7  UNLIMITED``.

    Raises:
        CorruptData: it is neither such a table nor the sentence that there is no window.
    """
    if _NO_WINDOW.search(text):
        return ()
    lines = text.splitlines()
    header = next((i for i, line in enumerate(lines) if line.split()[:2] == ["SLOTS", "RUNTIME"]), None)
    if header is None:
        raise CorruptData(f"bslots printed no table of windows but {text.strip()[:80]!r}")
    windows = []
    for line in lines[header + 1 :]:
        found = _ROW.fullmatch(line[:200])
        if found is None:
            continue
        slots, length = int(found.group(1)), found.group(2)
        seconds = _runtime(length)
        if slots and (seconds or length.upper() == "UNLIMITED"):
            windows.append(SlotWindow(slots=slots, seconds=seconds))
    return tuple(windows)


def parse_bjobs(text: str) -> tuple[LsfJob, ...]:
    """The output of :data:`BJOBS`; pending jobs in the order in which they are considered for dispatch.

    Raises:
        CorruptData: it is neither JSON nor the sentence that there is no job.
    """
    if _NO_JOB.search(text[:1000]) and not text.lstrip().startswith("{"):
        return ()
    try:
        document = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"bjobs did not print JSON: {str(error)[:200]}") from None
    records = document.get("RECORDS") if isinstance(document, dict) else None
    if not isinstance(records, list):
        raise CorruptData("bjobs printed JSON without RECORDS")
    jobs = []
    for record in records:
        if not isinstance(record, dict) or record.get("STAT") not in {"RUN", "PEND"}:
            continue
        running = record["STAT"] == "RUN"
        slots = _slots(record.get("SLOTS") if running else record.get("NREQ_SLOT"))
        if slots:
            left = _LEFT.fullmatch(str(record.get("TIME_LEFT", "")).strip())
            left_s = float(int(left.group(1)) * 3600 + int(left.group(2)) * 60) if left else None
            queue = str(record.get("QUEUE", ""))
            jobs.append(LsfJob(running=running, queue=queue, slots=slots, left_s=left_s))
    return tuple(jobs)


def find_windows(
    slots: Sequence[SlotWindow], jobs: Sequence[LsfJob], *, queue: str | None, slots_per_node: int
) -> tuple[BackfillWindow, ...]:
    """Windows of whole nodes, as if the slots were not spread over partly used ones.

    LSF plans no start for pending jobs when no queue has BACKFILL, and then calls every window unlimited. Those are
    ended here at the time when the first pending job could start.
    """
    unlimited = max((w.slots for w in slots if w.seconds is None), default=0)
    end = _first_start(jobs, queue, unlimited) if unlimited else None
    return staircase(
        BackfillWindow(
            queue=queue,
            nodes=window.slots // slots_per_node,
            seconds=end if window.seconds is None else min(window.seconds, MAX_SECONDS),
        )
        for window in slots
        if window.slots >= slots_per_node and not (window.seconds is None and end == 0)
    )


def _first_start(jobs: Sequence[LsfJob], queue: str | None, free: int) -> float | None:
    mine = [j for j in jobs if queue is None or j.queue == queue]
    first = next((j for j in mine if not j.running), None)
    if first is None:
        return None
    releases = [Release(end_s=j.left_s, nodes=j.slots) for j in mine if j.running and j.left_s is not None]
    claim = expected_claim(first.slots, free, releases, frozenset())
    return claim.start_s if claim else None


class LsfReader:
    """Asks the LSF client programs: two calls a look."""

    def __init__(
        self,
        *,
        slots_per_node: int,
        queue: str | None = None,
        options: tuple[str, ...] = (),
        limits: CallLimits | None = None,
    ) -> None:
        """Set up.

        Args:
            slots_per_node: how many slots make a whole node; 1 where a slot is a node.
            queue: the queue that requests go to.
            options: for bslots, for instance ``("-R", "select[CN]")``.
            limits: what one call may take.
        """
        self._slots_per_node = max(1, slots_per_node)
        self._queue = queue
        self._options = options
        self._limits = limits or CallLimits()

    async def read(self) -> tuple[BackfillWindow, ...]:
        """The windows, all of the one queue."""
        slots = parse_bslots(_text(await ask((*BSLOTS, *self._options), self._limits), "bslots", _NO_WINDOW))
        if not slots:
            return ()
        jobs = parse_bjobs(_text(await ask(BJOBS, self._limits), "bjobs", _NO_JOB))
        return find_windows(slots, jobs, queue=self._queue, slots_per_node=self._slots_per_node)


def _text(answer: Answer, program: str, nothing: re.Pattern[str]) -> str:
    """What was printed; LSF says on standard error, and with a bad exit status, that there is nothing to tell."""
    if nothing.search(answer.err[:1000]):
        return answer.err
    if answer.status != 0:
        raise Unavailable(f"{program} failed with status {answer.status}: {answer.said}")
    return answer.out


def _runtime(text: str) -> float | None:
    """Seconds of ``2 hours 30 minutes 5 seconds``; None for UNLIMITED and for anything else."""
    found = _UNIT.findall(text)
    return float(sum(int(n) * _UNIT_SECONDS[unit.lower()] for n, unit in found)) if found else None


def _slots(value: object) -> int:
    text = str(value).strip()
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
