"""The words that start MPI programs are made of those of the site file."""

from __future__ import annotations

import pytest

from hpcpanda.allocation.launch_words import job_launcher, parsl_options, with_counts
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import LauncherSettings

SRUN = (
    "srun", "--mpi=pmi2", "--nodes={ranks}", "--ntasks={ranks}", "--ntasks-per-node=1", "--cpu-bind=none",
    "--input=0", "--output=0", "--quiet",
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("mpiexec", "-n", "{ranks}"), "mpiexec -n 6"),
        (SRUN, "srun --mpi=pmi2 --nodes=2 --ntasks=6 --ntasks-per-node=3 --cpu-bind=none --quiet"),
        (("srun", "-N", "{ranks}", "-n", "{ranks}"), "srun -N 2 -n 6"),
        (("srun", "--input", "0", "-n", "{ranks}"), "srun -n 6"),
        (("env", "mpiexec", "-n", "{ranks}", "-ppn", "1"), "env mpiexec -n 6 -ppn 3"),
        (("mpiexec", "-n", "{ranks}", "--ppn=1"), "mpiexec -n 6 --ppn=3"),
        (("aprun", "-n", "{ranks}", "-N", "1", "-d", "1"), "aprun -n 6 -N 3 -d 1"),
    ],
)
def test_words_for_packs_become_words_for_jobs(command: tuple[str, ...], words: str) -> None:
    """Counts of nodes, of ranks a node and of all ranks are told apart; the head's line to rank 0 is left out."""
    made = job_launcher(LauncherSettings(command=command))
    assert " ".join(with_counts(made, nodes=2, ranks_per_node=3)) == words


def test_the_site_file_may_name_them_itself() -> None:
    """They are taken as they are."""
    settings = LauncherSettings(mpi_command=("flux", "run", "-N{nodes}", "-n{ranks}", "--x={ranks_per_node}"))
    words = with_counts(job_launcher(settings), nodes=2, ranks_per_node=3)
    assert words == ["flux", "run", "-N2", "-n6", "--x=3"]


def test_words_that_count_nothing_are_refused() -> None:
    """A job's number of ranks must reach the launcher."""
    with pytest.raises(InvalidValue, match=r"launcher\.mpi_command"):
        LauncherSettings(mpi_command=("flux", "run"))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (SRUN, "--mpi=pmi2 --cpu-bind=none --input=0 --output=0 --quiet"),
        (("mpiexec", "-n", "{ranks}", "-ppn", "1", "-bind-to", "none"), "-bind-to none"),
        (("mpiexec", "-n", "{ranks}"), ""),
    ],
)
def test_parsl_is_given_what_it_does_not_say_itself(words: tuple[str, ...], options: str) -> None:
    """It composes all counts."""
    assert parsl_options(words) == options
