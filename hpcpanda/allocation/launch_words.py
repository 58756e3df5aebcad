"""The words that start an MPI program, from the site file: for a pack, for a user's MPI job, and for Parsl."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import LauncherSettings

_PER_NODE: Final = frozenset(
    ("--ntasks-per-node", "-ppn", "--ppn", "-perhost", "-npernode", "--npernode", "-N")
)
"""Options of srun, Hydra, PALS, Open MPI and aprun that say how many ranks a node has."""
_NODES: Final = frozenset(("--nodes", "-N"))
"""Options of srun that say how many nodes a step has."""
_LINE_OF_RANK_0: Final = frozenset(("--input", "--output"))
"""Options of srun that leave only rank 0 a line to the head; all ranks of a job may print."""


def with_counts(words: Iterable[str], *, nodes: int, ranks_per_node: int) -> list[str]:
    """The words with ``{nodes}``, ``{ranks_per_node}`` and ``{ranks}``, the number of all ranks, filled in."""
    values = {"{nodes}": nodes, "{ranks_per_node}": ranks_per_node, "{ranks}": nodes * ranks_per_node}
    filled = []
    for word in words:
        for name, value in values.items():
            word = word.replace(name, str(value))  # noqa: PLW2901
        filled.append(word)
    return filled


def job_launcher(settings: LauncherSettings) -> tuple[str, ...]:
    """Words in front of an MPI job: those of the site file, or what its words for packs say of a pack with more ranks."""
    if settings.mpi_command is not None:
        return settings.mpi_command
    kept = (o for o in _options(_for_jobs(settings.command)) if o[0] not in _LINE_OF_RANK_0)
    return tuple(word for option in kept for word in option[1])


def parsl_options(words: tuple[str, ...]) -> str:
    """What Parsl is to add to the words that it composes: the options that do not speak of counts, which it says itself."""
    plain = (o for o in _options(_for_jobs(words[1:])) if not any("{" in word for word in o[1]))
    return " ".join(word for option in plain for word in option[1])


def find_launcher(words: list[str]) -> list[str]:
    """The words with the program's path.

    Raises:
        SchedulerFailed: the program is neither beside the Python interpreter nor on PATH.
    """
    first, *rest = words
    beside = Path(sys.executable).parent / first
    found = str(beside) if "/" not in first and beside.exists() else shutil.which(first)
    if found is None:
        raise SchedulerFailed(
            f"launcher {first!r} is neither beside {sys.executable} nor on PATH; check [launcher] of the site file"
        )
    return [found, *rest]


def _for_jobs(words: tuple[str, ...]) -> tuple[str, ...]:
    """Words for one rank a node as words for any number: the counts of nodes and of ranks a node told apart."""
    changed: list[str] = []
    for name, option in _options(words):
        value = option[-1].removeprefix(f"{name}=")
        if name in _PER_NODE and value == "1":
            changed += [*option[:-1], f"{option[-1][:-1]}{{ranks_per_node}}"]
        elif name in _NODES and value == "{ranks}":
            changed += [word.replace("{ranks}", "{nodes}") for word in option]
        else:
            changed += option
    return tuple(changed)


def _options(words: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each option's name with all its words; a word that does not begin with a dash belongs to the option before."""
    option: list[str] = []
    for word in words:
        if option and (word.startswith("-") or not option[0].startswith("-")):
            yield option[0].partition("=")[0], option
            option = []
        option.append(word)
    if option:
        yield option[0].partition("=")[0], option
