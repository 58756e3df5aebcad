"""The words that run a command in a container, for each runtime of docs/how-to/containers.md.

The command starts in its work folder and sees the image, that folder, what is bound, and its own variables. The home
folder is not mounted, except where a site's Shifter mounts it for everybody. Sources: the manuals of Apptainer
("apptainer exec"), Charliecloud ("ch-run"), Podman ("podman-run"), Podman-HPC (README, modules.d) and Shifter
("shifter" and its usage text).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from hpcpanda.domain.errors import InvalidValue, PayloadFailed
from hpcpanda.domain.payloads import ProcessPayload
from hpcpanda.domain.site import ContainerRuntime, ContainerSettings
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms.ports import Contain
from hpcpanda.payload.listing import InputFolders

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH in a container whose runtime is told to forget the node's and does not know the image's."""

_FILE: Final = r"/[^:,;\0\n]+"
_NAME: Final = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REFERENCE: Final = (
    rf"(?:[A-Za-z0-9][\w.-]*(?::\d+)?/)?{_NAME}(?:/{_NAME})*(?::[\w][\w.-]*)?(?:@sha256:[0-9a-f]{{64}})?"
)
"""An image in a registry, as the OCI distribution specification names it: ``host:port/path:tag@digest``."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One command to be run in a container."""

    settings: ContainerSettings
    image: str
    folder: str
    binds: tuple[tuple[str, bool], ...]
    """Folder or file, and whether it may be written."""
    environment: Mapping[str, str]
    options: tuple[str, ...]
    """The site's, with those for GPUs when they are asked for."""
    ranks: bool


@dataclass(frozen=True, slots=True)
class _Runtime:
    """What there is to know of a runtime."""

    program: str
    image: re.Pattern[str]
    images: str
    """Such names in words."""
    words: Callable[[_Run, list[str]], list[str]]
    """Words in front of the command; the list is those that start the program."""
    gpu_options: tuple[str, ...]
    """For NVIDIA's."""
    mounted: tuple[str, ...] = ()
    """Folders of the node that every container has."""
    descriptors: bool = True
    """The command inherits open descriptors."""


def check_image(settings: ContainerSettings, image: str) -> None:
    """Look whether the site's runtime takes such a name; not whether there is such an image.

    Raises:
        InvalidValue: it does not; the message says which names it takes.
    """
    runtime = _RUNTIMES[settings.runtime]
    if not runtime.image.fullmatch(image):
        raise InvalidValue(
            "container",
            f"{image[:200]!r} does not name an image for {settings.runtime}, which takes {runtime.images}",
        )


def container_command(
    settings: ContainerSettings,
    image: str,
    command: tuple[str, ...],
    *,
    folder: Path,
    binds: tuple[str, ...],
    environment: Mapping[str, str],
    gpus: bool,
    ranks: bool = False,
) -> list[str]:
    """The words that run ``command`` in ``image``, to be started without a shell and with the node's environment.

    Whoever ends the run kills the process group of what it started; nothing of the container is left then.

    Args:
        settings: the site's.
        image: as the runtime names images.
        command: words inside the container.
        folder: work folder; the command starts there and may write there, under the same path.
        binds: absolute paths that it needs besides, seen under the same path; ``:rw`` behind one lets it write.
        environment: its variables.
        gpus: it uses GPUs.
        ranks: it is a rank of an MPI program: the launcher's variables come along, and ranks of a node see one
            another's processes and shared memory.

    Raises:
        InvalidValue: the runtime takes no such image name, or a path cannot be said to it.
    """
    check_image(settings, image)
    runtime = _RUNTIMES[settings.runtime]
    gpu_options = runtime.gpu_options if settings.gpu_options is None else settings.gpu_options
    mounted = (*settings.mounted, *runtime.mounted)
    asked = dict(_bind(word) for word in (*binds, *settings.binds, f"{folder}:rw"))
    run = _Run(
        settings=settings,
        image=image,
        folder=str(folder),
        binds=tuple((path, rw) for path, rw in asked.items() if not _is_below(path, mounted)),
        environment=environment,
        options=(*settings.options, *(gpu_options if gpus else ())),
        ranks=ranks,
    )
    return [*runtime.words(run, [settings.program or runtime.program]), *command]


def contain(settings: ContainerSettings | None, spec: TaskSpec) -> Contain | None:
    """How the programs of a task of events are put into its container; None when it asks for none, or the site has none.

    Raises:
        PayloadFailed: it cannot be run by this site's runtime.
    """
    image = spec.container
    if image is None or settings is None:
        return None
    try:
        check_image(settings, image)
    except InvalidValue as error:
        raise PayloadFailed(str(error)) from None
    if isinstance(spec.payload, ProcessPayload) and not _RUNTIMES[settings.runtime].descriptors:
        raise PayloadFailed(
            f"payload.form: {settings.runtime} does not hand descriptors on, which payloads of the form 'process' "
            "are fed over; use 'command'"
        )
    folders = InputFolders(spec.inputs)

    def words(command: list[str], folder: Path, environment: Mapping[str, str]) -> list[str]:
        return container_command(
            settings, image, tuple(command), folder=folder, binds=folders.now(), environment=environment, gpus=False
        )  # fmt: skip

    return words


def _bind(word: str) -> tuple[str, bool]:
    path = word.removesuffix(":rw")
    if not re.fullmatch(_FILE, path):
        raise InvalidValue(
            "container", f"{path!r} cannot be bound: an absolute path without ':', ',' and ';' is needed"
        )
    return path, path != word


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def _pairs(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _apptainer(run: _Run, program: list[str]) -> list[str]:
    """Variables go by APPTAINERENV_NAME, for ``--env`` splits values at commas.

    The starter kills the container's first process when it dies itself; with a PID namespace that ends all others.
    """
    prefix = f"{run.settings.runtime.upper()}ENV_"
    apart = [] if run.ranks else ["--cleanenv", "--pid"]
    return [
        "env", *(prefix + pair for pair in _pairs(run.environment)),
        *program, "exec", "--no-home", *apart, "--pwd", run.folder,
        *(f"--bind={path}:{path}:{'rw' if rw else 'ro'}" for path, rw in run.binds),
        *run.options, run.image,
    ]  # fmt: skip


def _shifter(run: _Run, program: list[str]) -> list[str]:
    """Variables are set inside by env(1): releases differ in what their ``--env`` does.

    Shifter becomes the command: it is killed like any program.
    """
    return [
        *program, f"--image={run.image}", f"--workdir={run.folder}",
        *(f"--volume={path}:{path}{'' if rw else ':ro'}" for path, rw in run.binds),
        *run.options, "--", "env", *_pairs(run.environment),
    ]  # fmt: skip


def _podman(run: _Run, program: list[str]) -> list[str]:
    """Images are never fetched by a node. The guard ends the container with the client; see its module."""
    together = ["--env-host", "--pid=host", "--ipc=host"] if run.ranks else []
    return [
        sys.executable, "-m", "hpcpanda.allocation.podman_guard",
        *program, "run", "--rm", "--pull=never", "--network=host", "--entrypoint=", *together,
        f"--workdir={run.folder}",
        *(f"--volume={path}:{path}:{'rw' if rw else 'ro'}" for path, rw in run.binds),
        *run.options, *(f"--env={pair}" for pair in _pairs(run.environment)),
        run.image,
    ]  # fmt: skip


def _charliecloud(run: _Run, program: list[str]) -> list[str]:
    """Without TMPDIR the node's /tmp is the container's. Single quotes around a value are taken off by ch-run.

    It becomes the command, with an image in a folder: it is killed like any program. It cannot bind for reading only.
    """
    variables = run.environment if run.ranks else {"PATH": _PATH} | dict(run.environment)
    return [
        "env", "--unset=TMPDIR", *program, f"--cd={run.folder}",
        *(f"--bind={path}" for path, _ in run.binds),
        *([] if run.ranks else ["--unset-env=*"]), *run.options, "--env-no-expand",
        *(f"--set-env={name}='{value}'" for name, value in variables.items()),
        run.image, "--",
    ]  # fmt: skip


_OF_APPTAINER: Final = (
    re.compile(rf"{_FILE}|(?:docker|oras|library|shub|https?)://[\w./:@%+-]+"),
    "an absolute path (a .sif file, a sandbox folder) or a reference such as docker://HOST/NAME:TAG",
)
_OF_PODMAN: Final = (re.compile(_REFERENCE), "an image reference such as registry.example.org/group/name:tag")

_RUNTIMES: Final[Mapping[ContainerRuntime, _Runtime]] = {
    ContainerRuntime.APPTAINER: _Runtime("apptainer", *_OF_APPTAINER, _apptainer, ("--nv",)),
    ContainerRuntime.SINGULARITY: _Runtime("singularity", *_OF_APPTAINER, _apptainer, ("--nv",)),
    ContainerRuntime.SHIFTER: _Runtime(
        "shifter",
        re.compile(rf"(?:docker|custom):{_REFERENCE}|id:[0-9a-f]{{64}}|(?!id:){_REFERENCE}"),
        "docker:HOST/NAME:TAG, id:DIGEST or custom:NAME, as 'shifterimg images' lists them",
        _shifter,
        ("--module=gpu",),
    ),
    ContainerRuntime.PODMAN: _Runtime(
        "podman", *_OF_PODMAN, _podman, ("--device=nvidia.com/gpu=all",), descriptors=False
    ),
    ContainerRuntime.PODMAN_HPC: _Runtime(
        "podman-hpc", *_OF_PODMAN, _podman, ("--gpu",), descriptors=False
    ),
    ContainerRuntime.CHARLIECLOUD: _Runtime(
        "ch-run",
        re.compile(rf"{_FILE}|{_REFERENCE}"),
        "an absolute path (an image folder, a SquashFS file) or the name of an image in its storage",
        _charliecloud,
        (),
        mounted=("/tmp",),  # noqa: S108 - the folder's name, as ch-run(1) says it
    ),
}  # fmt: skip
