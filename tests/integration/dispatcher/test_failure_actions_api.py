"""What is done about failures, through the HTTP API with a scripted edge: jobs are split, nodes are put into quarantine."""

from __future__ import annotations

import pytest
from support.dispatcher import RunningDispatcher

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.run import create_token
from hpcpanda.domain.errors import Forbidden, NotFound
from hpcpanda.domain.exchange import Capacity, LeaseCommit, LeaseGrant, OutputFile, SyncReply, SyncRequest
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.room import Room
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, TaskSpec

ROOM = Room(cores=64, memory_mb=64_000, gpus=0, nodes=4, seconds=1e6)


class ScriptedEdge:
    """An edge whose jobs end as a test says."""

    def __init__(self, client: DispatcherClient, name: str) -> None:
        self.client = client
        self.name = name
        self.instance = f"{name}-1"

    def lease(self, task_id: int) -> LeaseGrant:
        capacity = Capacity(
            instance=self.instance, cores=100_000, seconds=1e4, room=ROOM, task_id=task_id, wait_s=5.0
        )
        (grant,) = self.client.acquire(self.name, capacity).leases
        return grant

    def say(self, **said: object) -> SyncReply:
        return self.client.sync(self.name, SyncRequest(instance=self.instance, **said))

    def ended(self, grant: LeaseGrant, *failed: FailedEvent) -> SyncReply:
        """All jobs of a lease have ended, these badly."""
        bad = IntervalSet.of(r for f in failed for r in IntervalSet.span(f.event, f.event + 1).ranges())
        commit = LeaseCommit(
            task_id=grant.task_id,
            epoch=grant.epoch,
            done=grant.events - bad,
            failed=failed,
            core_seconds=1.0,
        )
        return self.say(commits=(commit,), tasks=(grant.task_id,))


def task(files: int, *, name: str = "reco", per_job: int = 40) -> TaskSpec:
    """Files, so many a job."""
    listed = tuple(InputFile(path=f"/d/{n}.root", events=1, size=1) for n in range(files))
    return TaskSpec(
        name=name,
        payload=JobPayload(command=("reco", "{files}")),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
        inputs=Inputs(format=InputFormat.ROOT, container="t", files=listed),
        split=JobSplit(files_per_job=per_job),
        job=JobRequest(walltime_s=7200.0),
        loss=LossPolicy(retries=2),
    )


def test_large_jobs_go_on_as_smaller_ones_until_all_files_are_done(shared: RunningDispatcher) -> None:
    """A site where no job of more than five files ends in time: each file is read by one job that succeeds, the user is told
    in a sentence how it came to that, and the task is done."""
    with shared.user() as user, shared.edge("slow") as client:
        edge = ScriptedEdge(client, "slow")
        task_id = user.submit(task(80)).task_id
        read: list[str] = []
        for turn in range(10):
            grant = edge.lease(task_id)
            large = [one for one in grant.slices if len(one.files) > 5]
            read += [f.path for one in grant.slices if one not in large for f in one.files]
            facts = FailureFacts(limit="time")
            reply = edge.ended(
                grant,
                *(FailedEvent(event=one.job, error="ran for more than 7200 s", facts=facts) for one in large),
            )
            if turn == 0:
                reasons = user.explain(task_id).reasons
                assert any(
                    "job 1 needed more than 2 h; its 40 files go on as two jobs of 20, 1 and 3" in r
                    for r in reasons
                )
            if reply.tasks[0].state is TaskState.MERGING:
                break
        assert sorted(read) == sorted(f"/d/{n}.root" for n in range(80))
        total = user.task(task_id).progress.total
        assert total == 16
        file = OutputFile(
            task_id=task_id,
            path="/out",
            manifest="/out.json",
            events=IntervalSet.span(0, total),
            digest="d",
            size=1,
        )
        assert edge.say(outputs=(file,), tasks=(task_id,)).tasks[0].state is TaskState.DONE
        assert user.failures(task_id).events == ()


def test_a_node_goes_into_quarantine_and_comes_out(shared: RunningDispatcher) -> None:
    """The edge is told of it with its next answer; administrators see it, and lift it; users may do neither."""
    with shared.user() as user, shared.edge("broken") as client:
        edge = ScriptedEdge(client, "broken")
        told = None
        for number in range(3):
            task_id = user.submit(task(2, name=f"ecc{number}", per_job=2)).task_id
            grant = edge.lease(task_id)
            facts = FailureFacts(exit_status=1, node="nid0042")
            told = edge.ended(grant, FailedEvent(event=0, error="Uncorrectable ECC error", facts=facts)).nodes
        assert told is not None
        assert [one.node for one in told] == ["nid0042"]
        for act in (user.quarantines, lambda: user.lift_quarantine("broken", node="nid0042")):
            with pytest.raises(Forbidden, match="scope admin"):
                act()
        with DispatcherClient(shared.url, create_token(shared.settings, "admin", "root")) as admin:
            (found,) = [q for q in admin.quarantines() if q.edge == "broken"]
            assert (found.node, found.until) == ("nid0042", told[0].until)
            assert "Uncorrectable ECC error" in found.why
            assert admin.lift_quarantine("broken", node="nid0042").node == "nid0042"
            assert [q for q in admin.quarantines() if q.edge == "broken"] == []
            with pytest.raises(NotFound, match="has no node 'nid0042' in quarantine"):
                admin.lift_quarantine("broken", node="nid0042")
            (entry, *_) = admin.audit(who="user:root", limit=1).entries
            assert entry.did == "DELETE /v1/admin/quarantine/broken"
            assert entry.target == "node nid0042 of edge broken"
