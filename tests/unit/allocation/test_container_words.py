"""The words for each container runtime, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpanda.allocation.containers import contain, container_command
from hpcpanda.domain.errors import InvalidValue, PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload, ProcessPayload
from hpcpanda.domain.room import Room
from hpcpanda.domain.site import ContainerRuntime, ContainerSettings, GpuKind, NodeSettings, Site
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms import prepare

R = ContainerRuntime
IMAGES = {
    R.APPTAINER: "/images/root.sif",
    R.SINGULARITY: "docker://registry.example.org/hep/root:6.32",
    R.SHIFTER: "docker:registry.example.org/hep/root:6.32",
    R.PODMAN: "registry.example.org/hep/root:6.32",
    R.PODMAN_HPC: "localhost/root:1",
    R.CHARLIECLOUD: "/images/root",
}


def words(
    settings: ContainerSettings, *, image: str | None = None, gpus: bool = False, ranks: bool = False,
    binds: tuple[str, ...] = (), folder: str = "/scratch/job-7",
) -> list[str]:  # fmt: skip
    """The words of one command."""
    return container_command(
        settings, image or IMAGES[settings.runtime], ("run.sh", "a b"), folder=Path(folder), binds=binds,
        environment={"SEED": "1,2"}, gpus=gpus, ranks=ranks,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["apptainer", "singularity"])
def test_apptainer_has_neither_home_nor_variables_of_the_node(name: str) -> None:
    """A run is apart from the node but for its folder, and its variables reach it whole."""
    settings = ContainerSettings(
        runtime=R(name), binds=("/cvmfs", "/projects/x:rw"), options=("--writable-tmpfs",)
    )
    assert words(settings) == [
        "env", f"{name.upper()}ENV_SEED=1,2",
        name, "exec", "--no-home", "--cleanenv", "--pid", "--pwd", "/scratch/job-7",
        "--bind=/cvmfs:/cvmfs:ro", "--bind=/projects/x:/projects/x:rw", "--bind=/scratch/job-7:/scratch/job-7:rw",
        "--writable-tmpfs", IMAGES[settings.runtime], "run.sh", "a b",
    ]  # fmt: skip


def test_shifter() -> None:
    """Variables are set inside; what Shifter mounts by itself is not bound again."""
    settings = ContainerSettings(runtime=R.SHIFTER, mounted=("/scratch",), program="/usr/bin/shifter")
    assert words(settings, binds=("/data",)) == [
        "/usr/bin/shifter", f"--image={IMAGES[R.SHIFTER]}", "--workdir=/scratch/job-7",
        "--volume=/data:/data:ro", "--", "env", "SEED=1,2", "run.sh", "a b",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["podman", "podman-hpc"])
def test_podman_is_started_by_the_guard_and_fetches_nothing(name: str) -> None:
    """No node goes to a registry, and the container ends with its client."""
    found = words(ContainerSettings(runtime=R(name)))
    assert found[1:3] == ["-m", "hpcpanda.allocation.podman_guard"]
    assert found[3:] == [
        name, "run", "--rm", "--pull=never", "--network=host", "--entrypoint=", "--workdir=/scratch/job-7",
        "--volume=/scratch/job-7:/scratch/job-7:rw", "--env=SEED=1,2", IMAGES[R(name)], "run.sh", "a b",
    ]  # fmt: skip


def test_charliecloud() -> None:
    """Variables of the node are taken away; a folder in /tmp, which every container has, is not bound."""
    settings = ContainerSettings(runtime=R.CHARLIECLOUD)
    front = ["env", "--unset=TMPDIR", "ch-run"]
    path = "--set-env=PATH='/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'"
    back = [
        "--unset-env=*",
        "--env-no-expand",
        path,
        "--set-env=SEED='1,2'",
        "/images/root",
        "--",
        "run.sh",
        "a b",
    ]
    assert words(settings) == [*front, "--cd=/scratch/job-7", "--bind=/scratch/job-7", *back]
    assert words(settings, folder="/tmp/job-7") == [*front, "--cd=/tmp/job-7", *back]


@pytest.mark.parametrize(
    ("runtime", "option"),
    [(R.APPTAINER, "--nv"), (R.SHIFTER, "--module=gpu"), (R.PODMAN_HPC, "--gpu"), (R.PODMAN, "--device=nvidia.com/gpu=all")],
)  # fmt: skip
def test_gpus_come_when_asked_for(runtime: ContainerRuntime, option: str) -> None:
    """NVIDIA's by default, another maker's by the site file, none without being asked for."""
    assert option not in words(ContainerSettings(runtime=runtime))
    assert option in words(ContainerSettings(runtime=runtime), gpus=True)
    other = words(ContainerSettings(runtime=runtime, gpu_options=("--other",)), gpus=True)
    assert "--other" in other
    assert option not in other


@pytest.mark.parametrize("runtime", list(R))
def test_ranks_keep_what_their_launcher_told_them(runtime: ContainerRuntime) -> None:
    """An MPI rank needs the launcher's variables, and to see its neighbours on the node."""
    found = words(ContainerSettings(runtime=runtime), ranks=True)
    assert not {"--cleanenv", "--pid", "--unset-env=*"} & set(found)
    if runtime in (R.PODMAN, R.PODMAN_HPC):
        assert {"--env-host", "--pid=host", "--ipc=host"} <= set(found)


@pytest.mark.parametrize(
    ("runtime", "image"),
    [
        (R.APPTAINER, "images/root.sif"),
        (R.APPTAINER, "root:6.32"),
        (R.APPTAINER, "instance://mine"),
        (R.APPTAINER, "/images/a:b.sif"),
        (R.SHIFTER, "/images/root.sif"),
        (R.SHIFTER, "docker:"),
        (R.SHIFTER, "id:abc"),
        (R.PODMAN, "docker://root"),
        (R.PODMAN, "Root"),
        (R.PODMAN, "root --privileged"),
        (R.PODMAN_HPC, "/images/root"),
        (R.CHARLIECLOUD, "docker://root"),
        (R.CHARLIECLOUD, "../root"),
        (R.CHARLIECLOUD, "root\n"),
    ],
)
def test_names_of_another_manner_are_refused(runtime: ContainerRuntime, image: str) -> None:
    """The message names the runtime and what it takes."""
    with pytest.raises(InvalidValue, match=rf"for {runtime}, which takes "):
        words(ContainerSettings(runtime=runtime), image=image)


def test_paths_that_cannot_be_said_are_refused() -> None:
    """A colon or comma would be read as something else."""
    for path in ("/data:/etc", "/a,b", "data", "/a;b"):
        with pytest.raises(InvalidValue, match="cannot be bound"):
            words(ContainerSettings(runtime=R.APPTAINER), binds=(path,))
        with pytest.raises(InvalidValue, match=r"containers\.binds"):
            ContainerSettings(runtime=R.APPTAINER, binds=(path,))


def site(**nodes: object) -> Site:
    """A site with Apptainer."""
    return Site(
        name="s", spool="/spool", nodes=NodeSettings(count=1, cores=4, memory_mb=8000, **nodes),  # type: ignore[arg-type]
        containers=ContainerSettings(runtime=R.APPTAINER),
    )  # fmt: skip


def test_gpus_other_than_nvidias_need_their_options_said() -> None:
    """A site file that would hand out ``--nv`` on AMD nodes is refused."""
    assert site(gpus=4).containers is not None
    with pytest.raises(
        InvalidValue, match=r"containers\.gpu_options: say what apptainer needs for rocm GPUs"
    ):
        site(gpus=8, gpu_kind=GpuKind.ROCM)


def spec(payload: CommandPayload | ProcessPayload | JobPayload, **fields: object) -> TaskSpec:
    """A task in a container."""
    given: dict[str, object] = {"container": "/images/root.sif", "events": 10} | fields
    return TaskSpec(name="t", payload=payload, output=Output(file="o", format=OutputFormat.ZIP), **given)  # type: ignore[arg-type]


COMMAND = CommandPayload(command=("gen", "{output}"))


def test_room_tells_tasks_with_containers_apart() -> None:
    """A task in a container fits where containers can be run, whether it is of events or of jobs."""
    job = spec(JobPayload(command=("x",)), jobs=3, events=None)
    with_them = Room.of_site(site())
    without = Room(cores=4, memory_mb=8000, seconds=1e6)
    for task in (job, spec(COMMAND)):
        assert without.refusal_of(task) == "asks for a container, where none can be run"
    assert with_them.refusal_of(spec(COMMAND)) is None
    assert without.refusal_of(spec(COMMAND, container=None)) is None
    assert "seconds" in (with_them.refusal_of(job) or "")


def test_programs_of_events_see_their_inputs() -> None:
    """The folders of input files are bound, for reading."""
    files = tuple(InputFile(path=f"/data/{n}.lhe", events=5) for n in "ab")
    task = spec(COMMAND, events=None, inputs=Inputs(format=InputFormat.LHE, files=files))
    put = contain(ContainerSettings(runtime=R.APPTAINER), task)
    assert put is not None
    found = put(["gen"], Path("/tmp/slot-0"), {})
    assert [w for w in found if w.startswith("--bind")] == [
        "--bind=/data:/data:ro", "--bind=/tmp/slot-0:/tmp/slot-0:rw"
    ]  # fmt: skip


def test_a_task_never_runs_outside_its_container() -> None:
    """Where none can be run, the task has a fault that says so."""
    assert contain(None, spec(COMMAND)) is None
    with pytest.raises(PayloadFailed, match="none can be run here"):
        prepare(spec(COMMAND))
    with pytest.raises(PayloadFailed, match="which takes an image reference"):
        contain(ContainerSettings(runtime=R.PODMAN), spec(COMMAND))
    with pytest.raises(PayloadFailed, match="does not hand descriptors on"):
        contain(ContainerSettings(runtime=R.PODMAN), spec(ProcessPayload(command=("x",)), container="root"))
