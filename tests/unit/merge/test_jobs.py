"""The archive of a task of jobs, and the reports beside it."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.errors import CorruptData, HpcPandaError, InvalidValue, MergeFailed
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.bundle import LEAD_BYTES, MAGIC, JobReport
from hpcpanda.events.journal import segment_path
from hpcpanda.merge import (
    JobOutputs,
    MergeResult,
    Source,
    checking,
    copying,
    digest,
    digest_file,
    digest_members,
    load_manifest,
    merge,
    reading,
    reports_path,
)

_CONFTEST = Path(__file__).with_name("conftest.py")
_SPEC = importlib.util.spec_from_file_location("hpcpanda_tests_bundles", _CONFTEST)
assert _SPEC is not None
assert _SPEC.loader is not None
making = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = making
_SPEC.loader.exec_module(making)

N = 120
OUTPUTS = JobOutputs(jobs=N, outputs=making.OUTPUTS)


def merged(sources: list[Source], output: Path, jobs: JobOutputs = OUTPUTS, **request: Any) -> MergeResult:
    """The archive of these jobs."""
    return merge(sources=sources, format=OutputFormat.ZIP, output=output, provenance={}, jobs=jobs, **request)


def serial(jobs: range | list[int], of: int = N) -> list[tuple[str, bytes]]:
    """What running one job after the other leaves."""
    width = len(str(of - 1))
    return [(f"{job:0{width}}/{name}", data) for job in jobs for name, data in making.job_files(job)]


def dealt(spool: Any, jobs: list[int], seed: int, **options: Any) -> list[Source]:
    """Jobs on some nodes, each with an order of its own."""
    rng = random.Random(seed)
    shuffled = rng.sample(jobs, len(jobs))
    nodes = rng.randint(1, 5)
    sources = [
        spool.jobs(f"s{seed}n{k}", shuffled[k::nodes], making.job_files, **options) for k in range(nodes)
    ]
    rng.shuffle(sources)
    return sources


def test_members_are_files_in_job_order(spool: Any, tmp_path: Path) -> None:
    """Every declared file of every job is a member, in the declared order, as other programs read it."""
    result = merged(dealt(spool, list(range(N)), 1), tmp_path / "o.zip")
    with zipfile.ZipFile(result.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [name for name, _ in serial(range(N))]
        assert archive.namelist()[:3] == ["000/hist.bin", "000/job-0.txt", "000/folder/größe.log"]
        assert [(n, archive.read(n)) for n in archive.namelist()] == serial(range(N))
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    assert result.digest == digest_file(result.path, OutputFormat.ZIP) == digest_members(serial(range(N)))
    assert result.events == IntervalSet.span(0, N)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_the_digest_does_not_depend_on_how_jobs_were_run(data: st.DataObject) -> None:
    """Whatever the order, nodes, attempts, epochs, rolls and windows, files and digest are those of a serial run."""
    jobs = sorted(data.draw(st.sets(st.integers(0, N - 1), max_size=40)))
    outputs = data.draw(st.sampled_from([making.OUTPUTS, making.OUTPUTS[1:], ()]))
    names = [JobOutputs(jobs=N, outputs=outputs).names(job) for job in jobs]
    expected = [
        (f"{j:03}/{n}", dict(making.job_files(j))[n]) for j, own in zip(jobs, names, strict=True) for n in own
    ]

    def files(job: int) -> list[tuple[str, bytes]]:
        own = JobOutputs(jobs=N, outputs=outputs).names(job)
        return [(n, d) for n, d in making.job_files(job) if n in own]

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "WINDOW", data.draw(st.sampled_from([1, 900, 1 << 22])))
        patch.setattr(reading, "STEP", data.draw(st.sampled_from([100, 1 << 18])))
        block = data.draw(st.sampled_from([113, 1 << 22]))
        for module in (checking, copying, digest):
            patch.setattr(module, "BLOCK", block)
        spool = making.Spool(Path(name) / "spool")
        order = data.draw(st.permutations(jobs))
        cut = data.draw(st.integers(0, len(jobs)))
        sources = [
            spool.jobs("a", order[:cut], files, roll=data.draw(st.sampled_from([1, 5000, 1 << 30]))),
            spool.jobs("b", order[cut:], files, epoch=data.draw(st.integers(1, 3)), attempt=2),
        ]
        rest = IntervalSet.span(0, N)
        for job in jobs:
            rest = rest.remove(job, job + 1)
        result = merged(
            sources,
            Path(name) / "o",
            JobOutputs(jobs=N, outputs=outputs),
            failed=rest,
            threads=data.draw(st.integers(1, 3)),
        )
        assert result.digest == digest_members(expected) == digest_file(result.path, OutputFormat.ZIP)
        with zipfile.ZipFile(result.path) as archive:
            assert [(n, archive.read(n)) for n in archive.namelist()] == expected
        assert len(reports_path(result.path).read_text().splitlines()) == N


def test_names_and_borders_of_files_count() -> None:
    """The same bytes under another name, or cut elsewhere, have another digest."""
    base = [("0/a", b"12"), ("0/b", b"3"), ("1/a", b"")]
    others = [
        [("0/a", b"1"), ("0/b", b"23"), ("1/a", b"")],
        [("0/a", b"12"), ("0/c", b"3"), ("1/a", b"")],
        [("0/b", b"12"), ("0/a", b"3"), ("1/a", b"")],
        [("0/a", b"12"), ("0/b", b"3")],
        [("0/a", b"123"), ("0/b", b""), ("1/a", b"")],
        [("0/a", b"12"), ("0/b", b"4"), ("1/a", b"")],
    ]
    assert len({digest_members(m) for m in [base, *others]}) == 7


def test_the_digest_of_known_members_never_changes() -> None:
    """The format of the digest is fixed."""
    import hashlib

    listed = b'["0/a",2]\n["0/\\u00fc",1]\n'
    text = b'["members","|u1",[],null,%d]\n' % len(listed) + hashlib.sha256(listed).digest()
    text += b"[3]\n" + hashlib.sha256(b"123").digest()
    assert (
        digest_members([("0/a", b"12"), ("0/ü", b"3")]) == f"sha256-blocks:{hashlib.sha256(text).hexdigest()}"
    )


def test_duplicates_stay_out(spool: Any, tmp_path: Path) -> None:
    """Jobs that ran twice, under an epoch that lost, or as a clone, are in the archive once: as accepted."""
    first = spool.jobs("first", range(N), making.job_files)
    late = spool.jobs("late", range(40, 80), making.job_files, epoch=2, attempt=2)
    sources = [
        Source(journal=first.journal, epoch=1, events=IntervalSet((0, 40, 80, N))),
        late,
    ]
    result = merged(sources, tmp_path / "o.zip")
    alone = merged([first], tmp_path / "alone.zip")
    assert result.digest == alone.digest
    assert result.path.read_bytes() == alone.path.read_bytes()
    reports = [json.loads(line) for line in reports_path(result.path).read_text().splitlines()]
    assert [r["host"] for r in reports] == ["first"] * 40 + ["late"] * 40 + ["first"] * (N - 80)
    with pytest.raises(MergeFailed, match="accepted from two journals"):
        merged([first, late], tmp_path / "o2.zip")


def test_reports_stand_beside_the_archive(spool: Any, tmp_path: Path) -> None:
    """A line a job in job order: what its run was like, or why it failed; the manifest names the file."""
    lost = [FailedEvent(event=3, error="exit status 7", attempts=3), FailedEvent(event=99, error="not lost")]
    jobs = [j for j in range(10) if j not in (3, 8)]
    source = spool.jobs("a", reversed(jobs), making.job_files, failed=lost)
    failed = IntervalSet((3, 4, 8, 9))
    result = merged([source], tmp_path / "o.zip", JobOutputs(jobs=10, outputs=making.OUTPUTS), failed=failed)
    assert result.reports == tmp_path / "o.zip.jobs.jsonl"
    lines = [json.loads(line) for line in result.reports.read_text().splitlines()]
    assert [line["job"] for line in lines] == list(range(10))
    assert all(line.keys() == {f.name for f in fields(JobReport)} for line in lines)
    assert [line for line in lines if line["error"] is None] == [
        asdict(making.report_of(job, host="a")) for job in jobs
    ]
    assert (lines[3]["error"], lines[3]["attempt"]) == ("exit status 7", 3)
    assert "do not say why" in lines[8]["error"]
    assert result.digest == digest_members(serial(jobs, of=10))
    manifest = load_manifest(result.path)
    assert manifest is not None
    assert manifest.reports is not None
    assert (manifest.reports.file, manifest.reports.size) == (
        result.reports.name,
        result.reports.stat().st_size,
    )
    assert [(s.ranges, s.bytes) for s in manifest.sources] == [
        (8, segment_path(source.journal, 0).stat().st_size)
    ]


def test_all_jobs_failed(spool: Any, tmp_path: Path) -> None:
    """An empty archive and a line for each job."""
    result = merged([], tmp_path / "o.zip", failed=IntervalSet.span(0, N))
    assert result.digest == digest_members([]) == digest_file(result.path, OutputFormat.ZIP)
    assert zipfile.ZipFile(result.path).namelist() == []
    assert len(reports_path(result.path).read_text().splitlines()) == N


def test_doing_it_again_does_nothing(spool: Any, tmp_path: Path) -> None:
    """What stands is accepted without segments; without its reports, or with others, it is made again."""
    sources = dealt(spool, list(range(N)), 2)
    first = merged(sources, tmp_path / "o.zip")
    reports = reports_path(first.path)
    text = reports.read_bytes()
    for damaged in (None, text[:-1], text.replace(b"1.5", b"2.5", 1)):
        stamp = first.path.stat().st_ino
        if damaged is None:
            reports.unlink()
        else:
            reports.write_bytes(damaged)
        assert merged(sources, first.path) == first
        assert reports.read_bytes() == text
        assert first.path.stat().st_ino != stamp
    for path in spool.folder.iterdir():
        path.unlink()
    stamp = first.path.stat().st_ino
    assert merged(sources, first.path) == first
    assert first.path.stat().st_ino == stamp


def refused(words: str, error: type[HpcPandaError], folder: Path, **request: Any) -> None:
    """The merge fails, and leaves what was there before, and nothing else."""
    folder.mkdir(exist_ok=True)
    (folder / "o.zip").write_bytes(b"what was there before")
    with pytest.raises(error, match=words):
        merged(output=folder / "o.zip", **request)
    assert [p.name for p in folder.iterdir()] == ["o.zip"]
    assert (folder / "o.zip").read_bytes() == b"what was there before"


def rewrite(change: Callable[[dict[str, Any]], object], body: Callable[[bytes], bytes] = lambda b: b) -> Any:
    """Changes the head of the bundle of job 5, or its files."""

    def damage(job: int, data: bytes) -> bytes:
        if job != 5:
            return data
        size = int.from_bytes(data[len(MAGIC) : LEAD_BYTES], "little")
        head = json.loads(data[LEAD_BYTES : LEAD_BYTES + size])
        change(head)
        text = json.dumps(head).encode()
        return MAGIC + len(text).to_bytes(4, "little") + text + body(data[LEAD_BYTES + size :])

    return damage


def rename(number: int, name: str) -> Any:
    """Another name for a file."""
    return rewrite(lambda head: head["files"][number].update(name=name))


HOSTILE = {
    "longer than it is": (rewrite(lambda _: 0, lambda b: b + b"x"), CorruptData, "do not add up to its"),
    "shorter than it is": (rewrite(lambda _: 0, lambda b: b[:-1]), CorruptData, "do not add up to its"),
    "negative size": (
        rewrite(lambda h: (h["files"][0].update(size=-1), h["files"][1].update(size=4007))),
        CorruptData,
        "do not add up",
    ),
    "huge size": (rewrite(lambda h: h["files"][0].update(size=1 << 70)), CorruptData, "do not add up"),
    "parent folder": (rename(0, "../../etc/passwd"), MergeFailed, r"job 5 lacks 'hist\.bin'"),
    "one file too many": (
        rewrite(lambda h: h["files"].append({"name": "../x", "size": 0})),
        MergeFailed,
        r"job 5 has a file '\.\./x', which the task does not declare",
    ),
    "absolute": (
        rewrite(lambda h: h["files"].append({"name": "/etc/x", "size": 0})),
        MergeFailed,
        "has a file '/etc/x'",
    ),
    "other job's file": (rename(1, "job-6.txt"), MergeFailed, r"job 5 lacks 'job-5\.txt'"),
    "name twice": (rename(1, "hist.bin"), CorruptData, r"two files named 'hist\.bin'"),
    "file missing": (
        rewrite(lambda h: h["files"].pop(), lambda b: b[:-5]),
        MergeFailed,
        "job 5 lacks 'folder/größe.log'",
    ),
    "other job": (rewrite(lambda h: h["report"].update(job=6)), CorruptData, "bundle of job 6 stands where"),
    "failed job": (
        rewrite(lambda h: h["report"].update(error="exit status 1")),
        MergeFailed,
        "job 5 is accepted as done, but its report says 'exit status 1'",
    ),
    "no report": (rewrite(lambda h: h.pop("report")), CorruptData, "cannot be understood"),
    "unknown field": (rewrite(lambda h: h.update(x=1)), CorruptData, "cannot be understood"),
    "no bundle": (lambda job, d: d if job != 5 else b"x" + d[1:], CorruptData, "not a bundle"),
    "nothing": (lambda job, d: d if job != 5 else b"", CorruptData, "not a bundle: it is too short"),
    "lead only": (lambda job, d: d if job != 5 else d[:LEAD_BYTES], CorruptData, "claims to end at byte"),
    "head runs into the next": (
        lambda job, d: d if job != 5 else MAGIC + (len(d) + 9).to_bytes(4, "little") + d[LEAD_BYTES:],
        CorruptData,
        "claims to end at byte",
    ),
    "huge head": (
        lambda job, d: d if job != 5 else MAGIC + b"\xff" * 4 + d[LEAD_BYTES:],
        CorruptData,
        "not a bundle",
    ),
}


@pytest.mark.parametrize("window", [1, 1 << 22])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bundles_are_refused(
    spool: Any, tmp_path: Path, name: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that lies, though its checksum is right, fails the merge with the place, and nothing is left."""
    damage, error, words = HOSTILE[name]
    monkeypatch.setattr(reading, "WINDOW", window)
    source = spool.jobs("a", range(10), making.job_files, damage=damage)
    place = r"a\.00000\.segment, bytes \d+ to \d+, events \[5, 6\)"
    refused(f"(?s){words}.*{place}.*nothing was merged", error, tmp_path / "out", sources=[source])


@pytest.mark.parametrize("window", [1, 1 << 22])
def test_damaged_bundles_are_refused(
    spool: Any, tmp_path: Path, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped bit at any place, a short and a missing segment: the error names segment and job."""
    monkeypatch.setattr(reading, "WINDOW", window)
    source = spool.jobs("a", range(4), making.job_files)
    segment = segment_path(source.journal, 0)
    data = segment.read_bytes()
    for at in sorted(random.Random(1).sample(range(len(data)), 25)):
        damaged = bytearray(data)
        damaged[at] ^= 4
        segment.write_bytes(damaged)
        refused(
            r"(?s)a\.00000\.segment, bytes \d+ to \d+, events \[",
            CorruptData,
            tmp_path / "out",
            sources=[source],
        )
    segment.write_bytes(data[:-1])
    refused(r"a\.00000\.segment.*events \[3, 4\)", CorruptData, tmp_path / "out", sources=[source])
    segment.unlink()
    refused(r"a\.00000\.segment is missing", CorruptData, tmp_path / "out", sources=[source])


def test_what_is_not_a_job_of_the_task_is_refused(spool: Any, tmp_path: Path) -> None:
    """A number beyond the task's jobs, a range of several, another format, two outputs of one name."""
    source = spool.jobs("a", range(5), making.job_files)
    few = JobOutputs(jobs=4, outputs=making.OUTPUTS)
    refused(
        r"not one of the task's 4 jobs: .*events \[4, 5\)",
        MergeFailed,
        tmp_path / "o",
        sources=[source],
        jobs=few,
    )
    ranges = spool.node("b", [(0, 3)], making.plain_bytes)
    refused(r"not one of the task's .*events \[0, 3\)", MergeFailed, tmp_path / "o", sources=[ranges])
    same = JobOutputs(jobs=N, outputs=("job-{job}.txt", "job-1.txt"))
    twice = spool.jobs("c", [1], lambda _: [("job-1.txt", b"x")])
    refused(
        "one file for two outputs of the same name", MergeFailed, tmp_path / "o", sources=[twice], jobs=same
    )
    long = JobOutputs(jobs=N, outputs=("x" * 66_000,))
    named = spool.jobs("d", [1], lambda _: [("x" * 66_000, b"x")])
    refused("longer than 65535 bytes", InvalidValue, tmp_path / "o", sources=[named], jobs=long)
    with pytest.raises(MergeFailed, match="use zip"):
        merge(
            sources=[source], format=OutputFormat.CONCAT, output=tmp_path / "x", provenance={}, jobs=OUTPUTS
        )


def test_progress_rises_to_one(spool: Any, tmp_path: Path) -> None:
    """Progress never falls, and reading, copying and checking are all told."""
    told: list[float] = []
    merged(dealt(spool, list(range(N)), 3), tmp_path / "o.zip", progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert any(0 < share <= 0.25 for share in told)
    assert any(0.25 < share <= 0.7 for share in told)
