"""A private Slurm cluster on the loopback device: one controller, several pretended nodes, two partitions.

``backfill`` is the default and is preempted: SIGTERM to the steps, ``grace_s`` later SIGKILL, then the job is queued
again under its id. ``urgent`` preempts it. Everything lives in one temporary folder, with a munge of its own; nothing
of the system's configuration is read or written, and nothing listens on another address than 127.0.0.1.

``python -m tests.support.slurm`` runs such a cluster in the foreground.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support.processes import living
from tests.support.services import wait_until

_PROGRAMS: Final = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
)
_PACKAGES: Final = ("slurm-wlm", "munge")
_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_NEEDED: Final = (
    f"needs Slurm and munge: as root, apt-get install --no-install-recommends {' '.join(_PACKAGES)}"
)

CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is queued again waits at least cred_expire before it starts again.
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_s}
# Listen on the address of the host's name, which is 127.0.0.1, instead of on all.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdDebug=verbose

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/accounting
MpiDefault=none
# MPICH names its shared memory after job and step; what a killed rank of another cluster has left must not be met.
FirstJobId={first_job}
SlurmdParameters=config_overrides

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
SelectType=select/linear
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobFileAppend=1
KillWait=2
SlurmdTimeout=10
InactiveLimit=0
ReturnToService=2

{nodes}
PartitionName=backfill Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s} MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP
"""

USE = """
A Slurm cluster of {count} nodes runs on this machine, for this user. In another terminal:

  export SLURM_CONF={conf} UCX_NET_DEVICES=lo
  sinfo                                   # partitions backfill (preempted by requeue) and urgent
  srun -N {count} -l printenv SLURMD_NODENAME
  hpcpanda dispatcher token edge loopback-cluster > cluster.token
  hpcpanda-edge run --site site-configs/loopback-cluster.toml --token-file cluster.token

  sbatch -p urgent -N {count} --wrap 'sleep 20'  # preempts what runs in backfill
  squeue; cat {folder}/accounting

Logs are in {folder}. Ctrl-C ends the cluster and its jobs.
"""


class NotInstalled(Exception):
    """Slurm or munge is not there and cannot be installed from here."""


def ensure_installed() -> None:
    """Install Debian's Slurm and munge when they are missing; no service is started by that.

    Raises:
        NotInstalled: it cannot be done; the text says what to do.
    """
    if _missing() is None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"{_missing()} is not on PATH; {_NEEDED}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES)
    with _no_service_starts():
        for words in (install, ("apt-get", "update", "--quiet"), install):
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            if _missing() is None:
                return
    raise NotInstalled(f"{shlex.join(install)} failed: {done.stderr[-1000:]}")


def _missing() -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS))
    return next((p for p in _PROGRAMS if shutil.which(p, path=path) is None), None)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep packages from starting what they bring, by Debian's own means."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A line of the queue."""

    job_id: int
    name: str
    partition: str
    state: str
    nodes: str


@dataclass(slots=True)
class SlurmCluster:
    """A cluster in a folder; started by :meth:`start`, ended by :meth:`stop`."""

    folder: Path
    count: int = 4
    cpus: int = 2
    grace_s: int = 3
    requeue_s: int = 5
    """A job that was queued again starts after this time at the earliest."""
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # ---- life ----

    def start(self) -> None:
        """Start munge, the controller and the nodes; gives back when all nodes are idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        ports = _free_ports(self.count + 1)
        self.conf.write_text(
            CONF.format(
                host=socket.gethostname().partition(".")[0],
                port=ports[0],
                user=getpass.getuser(),
                folder=self.folder,
                requeue_s=self.requeue_s,
                grace_s=self.grace_s,
                first_job=1000 + secrets.randbelow(60_000_000),
                nodes="\n".join(
                    f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
                    "RealMemory=4000 State=UNKNOWN"
                    for name, port in zip(self.nodes, ports[1:], strict=True)
                ),
            )
        )
        try:
            self._start_munge()
            self._start("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.conf))
            for name in self.nodes:
                self.start_node(name)
            wait_until(self._all_idle, "idle nodes", on_wait=self._check_alive)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all jobs and all daemons; nothing of the cluster is left."""
        if self._alive("slurmctld"):
            jobs = [str(job.job_id) for job in self.queue()]
            with contextlib.suppress(AssertionError, subprocess.SubprocessError):
                if jobs:
                    self.run("scancel", "--quiet", *jobs)
                wait_until(lambda: not self.queue(), "an empty queue", seconds=10)
        order = [*self.nodes, "slurmctld", "munged"]
        left = [p for node in self.nodes for p in self.processes(node)]
        for names in (self.nodes, order[len(self.nodes) :]):
            running = [self.daemons[name] for name in names if name in self.daemons]
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)

    def start_node(self, name: str) -> None:
        """Start a node's daemon, at first or after :meth:`kill_node`."""
        (self.folder / "spool" / name).mkdir(exist_ok=True)
        self._start(name, "slurmd", "-D", "-N", name, "-f", str(self.conf))

    def kill_node(self, name: str, *, noticed: bool = False) -> None:
        """SIGKILL a node's daemon and every process of its jobs, as a lost node would.

        ``noticed``: Slurm is told, and does not take its half minute to find out.
        """
        daemon = self.daemons[name]
        victims = self.processes(name)
        daemon.kill()
        daemon.wait()
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(victims, timeout=10)
        if noticed:
            self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=lost")

    def processes(self, node: str) -> list[psutil.Process]:
        """Step managers of a node and all processes below them."""
        spool = f"{self.folder}/spool/{node}/"

        def look(process: psutil.Process) -> list[psutil.Process] | None:
            if process.name() != "slurmstepd":
                return None
            if not any(str(c.laddr).startswith(spool) for c in process.net_connections(kind="unix")):
                return None
            return [process, *process.children(recursive=True)]

        return list({part.pid: part for parts in living(look) for part in parts}.values())

    # ---- facts ----

    @property
    def conf(self) -> Path:
        """The configuration, value of SLURM_CONF."""
        return self.folder / "slurm.conf"

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes."""
        return [f"n{i + 1}" for i in range(self.count)]

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment for programs that use the cluster."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SQUEUE"))}
        return kept | self.variables

    @property
    def variables(self) -> dict[str, str]:
        """The variables to add to an environment."""
        path = os.environ.get("PATH", "").split(os.pathsep)
        missing = [f for f in _FOLDERS if f not in path]
        # UCX, which carries MPICH's messages between nodes, listens on every device unless told
        return {
            "SLURM_CONF": str(self.conf),
            "PATH": os.pathsep.join([*path, *missing]),
            "UCX_NET_DEVICES": "lo",
        }

    # ---- commands ----

    def run(
        self,
        *words: str,
        seconds: float = 60.0,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm."""
        done = subprocess.run(
            words,
            env=self.environment | dict(environment or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            input=stdin or "",
        )
        assert not check or done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
        return done

    def sbatch(self, script: str, *options: str) -> int:
        """Submit a shell script; gives the job's id. Its output goes to ``ID.out`` in the cluster's folder."""
        file = self.folder / f"script-{secrets.token_hex(4)}.sh"
        file.write_text(f"#!/bin/bash\n{script}\n")
        words = ("sbatch", "--parsable", f"--output={self.folder}/%j.out", f"--chdir={self.folder}")
        return int(self.run(*words, *options, str(file)).stdout)

    def preempt(self, nodes: int | None = None, seconds: float = 5.0) -> int:
        """Submit an urgent job of so many nodes, all when not said; what is in its way is preempted."""
        return self.sbatch(
            f"exec sleep {seconds}",
            "--partition=urgent",
            f"--nodes={nodes or self.count}",
            "--job-name=urgent",
        )

    def cancel(self, job_id: int) -> None:
        """Take a job out of the queue, running or not."""
        self.run("scancel", str(job_id))

    def output(self, job_id: int) -> str:
        """What a job of :meth:`sbatch` has printed."""
        file = self.folder / f"{job_id}.out"
        return file.read_text(errors="replace") if file.exists() else ""

    def queue(self) -> list[QueuedJob]:
        """Jobs that are queued, running or ending."""
        lines = self.run("squeue", "--noheader", "--format=%i|%j|%P|%T|%N").stdout.splitlines()
        rows = (line.strip().split("|") for line in lines)
        return [QueuedJob(int(i), name, partition, state, nodes) for i, name, partition, state, nodes in rows]

    def node_states(self) -> dict[str, str]:
        """States by node."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").stdout.splitlines()
        return dict(line.split() for line in lines)

    def job(self, job_id: int) -> dict[str, str]:
        """What the controller remembers of a job."""
        text = self.run("scontrol", "--oneliner", "show", "job", str(job_id)).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait_for(self, job_id: int, *states: str, seconds: float = 60.0) -> dict[str, str]:
        """Wait until a job is in one of these states."""
        last: dict[str, str] = {}

        def reached() -> bool:
            last.clear()
            last.update(self.job(job_id))
            return last["JobState"] in states

        try:
            wait_until(reached, f"job {job_id} {'/'.join(states)}", seconds=seconds)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {last}\n{self.output(job_id)}") from None
        return last

    def accounting(self, job_id: int | None = None) -> list[dict[str, str]]:
        """One row for each run of a job that has ended, in order; a job that was queued again has several."""
        file = self.folder / "accounting"
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return [row for row in rows if job_id is None or row["JobId"] == str(job_id)]

    def log(self, name: str, tail: int = 4000) -> str:
        """The end of a daemon's log."""
        file = self.folder / (f"slurmd-{name}.log" if name in self.nodes else f"{name}.log")
        return file.read_text(errors="replace")[-tail:] if file.exists() else ""

    # ---- daemons ----

    def _start_munge(self) -> None:
        files = {
            "key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed",
            "log-file": "munged.log",
        }  # fmt: skip
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._start("munged", "munged", "--foreground", "--force", "--num-threads=2", *options)
        wait_until((self.folder / "munge.socket").exists, "munge", on_wait=self._check_alive)

    def _start(self, name: str, *words: str) -> None:
        path = self.variables["PATH"]
        program = shutil.which(words[0], path=path)
        assert program is not None
        with (self.folder / f"{name}.err").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, *words[1:]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _alive(self, name: str) -> bool:
        return name in self.daemons and self.daemons[name].poll() is None

    def _check_alive(self) -> None:
        for name in self.daemons:
            err = (self.folder / f"{name}.err").read_text(errors="replace")[-2000:]
            assert self._alive(name), f"{name} ended:\n{err}\n{self.log(name)}"

    def _all_idle(self) -> bool:
        done = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False)
        states = dict(line.split() for line in done.stdout.splitlines())
        return done.returncode == 0 and [states.get(n) for n in self.nodes] == ["idle"] * self.count


def alive(process: psutil.Process) -> bool:
    """Whether a process is more than an entry that nobody has reaped."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below those that the system gives out by itself."""
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def check_loopback() -> None:
    """Slurm's daemons bind to the address of the host's name: it must be a loopback address.

    Raises:
        NotInstalled: it is not.
    """
    host = socket.gethostname()
    with contextlib.suppress(OSError):
        if socket.gethostbyname(host).startswith("127."):
            return
    raise NotInstalled(
        f"the test cluster needs a line '127.0.0.1 {host}' in /etc/hosts, to listen on loopback only"
    )


@contextlib.contextmanager
def cluster(count: int = 4, *, cpus: int = 2, grace_s: int = 3) -> Iterator[SlurmCluster]:
    """A running cluster.

    Raises:
        NotInstalled: it cannot run here; the text says what to do.
    """
    ensure_installed()
    check_loopback()
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # the paths of sockets must be short
    folder.chmod(0o755)
    made = SlurmCluster(folder, count=count, cpus=cpus, grace_s=grace_s)
    try:
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster of four nodes for all tests of a session."""
    try:
        with cluster() as made:
            yield made
    except NotInstalled as problem:
        pytest.skip(str(problem))


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The cluster with an empty queue and all nodes idle; this process's environment speaks to it."""
    for name, value in slurm_cluster.variables.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    for job in slurm_cluster.queue():
        slurm_cluster.cancel(job.job_id)
    wait_until(lambda: not slurm_cluster.queue(), "an empty queue")
    wait_until(slurm_cluster._all_idle, "idle nodes")


def _interrupt(*_: object) -> None:
    """The first signal ends the cluster; further ones do not disturb that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Run a cluster until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.slurm", description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=4, help="nodes to pretend (4)")
    parser.add_argument("--cpus", type=int, default=2, help="processors of each node to pretend (2)")
    parser.add_argument(
        "--grace", type=int, default=3, help="seconds from SIGTERM to SIGKILL of a preempted job (3)"
    )
    words = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    try:
        with cluster(words.nodes, cpus=words.cpus, grace_s=words.grace) as made:
            print(USE.format(count=words.nodes, conf=made.conf, folder=made.folder))
            print(f"Started in {time.monotonic() - began:.1f} s.", flush=True)
            signal.pause()
    except NotInstalled as problem:
        sys.exit(f"No cluster: {problem}")
    except KeyboardInterrupt:
        print("Ended.")


if __name__ == "__main__":
    main()
