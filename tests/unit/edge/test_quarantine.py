"""Nodes in quarantine: what the edge keeps of them, what it asks the batch system for, and which nodes stay out of packs."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge.batch_system.job_script import psij_job
from hpcpanda_edge.ports import AllocationJob
from hpcpanda_edge.quarantine import QuarantineKeeper
from support.edge import small_site

from hpcpanda.allocation import node_quarantine
from hpcpanda.allocation.node_quarantine import node_name, quarantined, why_kept_out
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.failures import NodeQuarantine
from hpcpanda.domain.site import SchedulerSettings, Site

NOW = 1e9
N7 = NodeQuarantine(node="n7", until=NOW + 100.0, why="Uncorrectable ECC.")
N8 = NodeQuarantine(node="n8", until=NOW + 50.0, why="It fell off the bus.")
"""What the dispatcher says."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Of 12 nodes that are real."""
    made = small_site(tmp_path / "spool")
    return replace(made, nodes=replace(made.nodes, count=12, oversubscribe=False))


@pytest.fixture
def spool(site: Site) -> Spool:
    Path(site.spool).mkdir(parents=True, exist_ok=True)
    return Spool(Path(site.spool))


def test_what_is_said_is_kept_until_it_is_over(site: Site, spool: Spool) -> None:
    """In a file, so that a new edge and the nodes know it; what says nothing changes nothing, and where there was never a node
    in quarantine no file is written."""
    keeper = QuarantineKeeper(spool, site)
    keeper.keep(None)
    keeper.keep(())
    assert not spool.quarantine.exists()
    keeper.keep((N7, N8))
    keeper.keep(None)
    assert quarantined(spool, NOW) == (N7, N8)
    assert quarantined(spool, NOW + 50.0) == (N7,)
    QuarantineKeeper(spool, site).keep(())
    assert quarantined(spool, NOW) == ()


def test_a_damaged_file_says_nothing(spool: Spool) -> None:
    """No work is stopped for it."""
    for text in ("", "{", '{"nodes": [{"node": 7}], "format": 1}', '{"nodes": [], "format": 2}'):
        spool.quarantine.write_text(text)
        assert quarantined(spool, NOW) == ()


def test_a_full_disk_is_tried_again(site: Site, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next time that it is said."""
    keeper = QuarantineKeeper(spool, site)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("hpcpanda_edge.quarantine.write_message", full)
        keeper.keep((N7,))
    assert quarantined(spool, NOW) == ()
    keeper.keep((N7,))
    assert quarantined(spool, NOW) == (N7,)


def test_the_batch_system_is_asked_to_leave_out_a_few(site: Site, spool: Spool) -> None:
    """Never so many that an allocation might wait for ever: at most a quarter of the nodes, and as many as are not needed."""
    keeper = QuarantineKeeper(spool, site)
    assert keeper.avoided(1, NOW) == ()
    keeper.keep((N7, N8))
    assert keeper.avoided(10, NOW) == ("n7", "n8")
    assert keeper.avoided(11, NOW) == ()
    assert keeper.avoided(11, NOW + 60.0) == ("n7",)
    many = tuple(replace(N7, node=f"n{n}") for n in range(4))
    keeper.keep(many)
    assert keeper.avoided(1, NOW) == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_slurm_is_told_and_others_are_not(tmp_path: Path) -> None:
    """Beside nodes that the site file leaves out; the programs of PBS and LSF have no such option."""

    def asked(executor: str, avoid: tuple[str, ...], **options: str) -> dict[str, str]:
        job = AllocationJob(
            allocation_id="a1", nodes=1, walltime_s=60.0, command=("true",), folder=tmp_path, avoid=avoid
        )
        settings = SchedulerSettings(executor=executor, options=options)
        found: dict[str, str] = psij_job(job, settings, 0).spec.attributes.custom_attributes
        return found

    assert asked("slurm", ("n7", "n8"))["slurm.exclude"] == "n7,n8"
    assert asked("slurm", ("n7",), **{"slurm.exclude": "n[1-3]"})["slurm.exclude"] == "n[1-3],n7"
    assert "slurm.exclude" not in asked("slurm", ())
    assert asked("pbs", ("n7",)) == asked("pbs", ())
    assert asked("lsf", ("n7",)) == asked("lsf", ())


def test_a_node_stays_out_only_where_another_does_not(site: Site, spool: Spool) -> None:
    """It can tell so by itself: fewer nodes are in quarantine than its pack has."""
    QuarantineKeeper(spool, site).keep((N7, N8))

    def told(node: str, nodes: int, now: float = NOW) -> str | None:
        return why_kept_out(spool, site, nodes=nodes, now=now, environment={"SLURMD_NODENAME": node})

    assert told("n7", 3) == "n7 is in quarantine. Uncorrectable ECC."
    assert told("n7", 2) is None
    assert told("n7", 2, NOW + 60.0) == "n7 is in quarantine. Uncorrectable ECC."
    assert told("n8", 2, NOW + 60.0) is None
    assert told("n9", 3) is None


def test_pretended_nodes_have_one_name(site: Site, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of this machine: none of them stays out, unless the batch system tells them apart."""
    monkeypatch.setattr(node_quarantine.socket, "gethostname", lambda: "n7")
    QuarantineKeeper(spool, site).keep((N7,))
    pretended = replace(site, nodes=replace(site.nodes, oversubscribe=True))
    assert node_name({}) == "n7"
    assert why_kept_out(spool, site, nodes=2, now=NOW, environment={}) is not None
    assert why_kept_out(spool, pretended, nodes=2, now=NOW, environment={}) is None
    named = {"SLURMD_NODENAME": "n7"}
    assert why_kept_out(spool, pretended, nodes=2, now=NOW, environment=named) is not None
