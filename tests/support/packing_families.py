"""Jobs of many shapes, by seed: what packing is measured with. Each family is jobs, the kind of node, and its time.

The large instances of a family are drawn from its ``draw``; the small ones for the exact oracle are the same jobs on
smaller nodes, in a few steps of time. The classic one-dimensional instances are drawn by their authors' recipes:

- Falkenauer, "A hybrid grouping genetic algorithm for bin packing", Journal of Heuristics 2 (1996): uniform ("u") and
  triplets ("t", optimum n/3 known by construction);
- Scholl, Klein, Juergens, "BISON: a fast hybrid procedure for exactly solving the one-dimensional bin packing problem",
  Computers & Operations Research 24 (1997): three sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from hpcpanda.packing.tables import ANYWHERE, Floats, Ints, JobTable, NodeTable

HOUR = 3600.0


def jobs_of(
    cores: Ints,
    seconds: Floats,
    *,
    memory_mb: Ints | None = None,
    gpus: Ints | None = None,
    nodes: Ints | None = None,
) -> JobTable:
    """Jobs of equal priority that may run at any time; what is not given is not needed."""
    n = len(cores)
    none = np.zeros(n, np.int64)
    return JobTable(
        cores=cores.astype(np.int64),
        memory_mb=none if memory_mb is None else memory_mb.astype(np.int64),
        gpus=none if gpus is None else gpus.astype(np.int64),
        disk_mb=none,
        nodes=none + 1 if nodes is None else nodes.astype(np.int64),
        seconds=seconds.astype(np.float64),
        priority=none,
        not_before=np.zeros(n),
        deadline=np.full(n, np.inf),
        affinity=np.full(n, ANYWHERE, np.int64),
    )


def kind_of(cores: int, seconds: float, *, memory_mb: int = 0, gpus: int = 0, count: int = 1) -> NodeTable:
    """Equal nodes, free from 0."""
    ones = np.ones(count, np.int64)
    return NodeTable(
        cores=ones * cores,
        memory_mb=ones * memory_mb,
        gpus=ones * gpus,
        disk_mb=ones * 0,
        free_from=np.zeros(count),
        free_until=np.full(count, seconds),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Jobs that have something in common."""

    name: str
    kind: NodeTable
    """One row."""
    seconds: float
    draw: Callable[[Generator, int], JobTable]
    small_kind: NodeTable
    small_scale: float = 3
    """How much longer, of all the time there is, small jobs take than large ones."""
    small_steps: int = 6
    """Steps of time in which a small node is free."""
    small_step: float = HOUR

    def jobs(self, n: int, seed: int) -> JobTable:
        """So many jobs; equal for equal arguments."""
        return self.draw(np.random.default_rng([seed, n]), n)

    def small(self, n: int, seed: int) -> JobTable:
        """Jobs that fit a small node, their times whole steps."""
        jobs = self.jobs(n, seed)
        steps = np.ceil(jobs.seconds / self.seconds * self.small_scale * self.small_steps).clip(
            1, self.small_steps
        )
        return replace(
            jobs,
            cores=np.minimum(jobs.cores, self.small_kind.cores[0]),
            memory_mb=np.minimum(jobs.memory_mb, self.small_kind.memory_mb[0]),
            gpus=np.minimum(jobs.gpus, self.small_kind.gpus[0]),
            nodes=np.minimum(jobs.nodes, 3),
            seconds=steps * self.small_step,
        )

    @property
    def small_seconds(self) -> float:
        """Time in which a small node is free."""
        return self.small_steps * self.small_step


def _lognormal(rng: Generator, median: float, sigma: float, n: int, *, most: float) -> Floats:
    """Seconds, whole, at least a minute."""
    return np.ceil(median * np.exp(sigma * rng.standard_normal(n)).clip(60 / median, most / median))


def _hep_cores(rng: Generator, n: int) -> Ints:
    return rng.choice(np.array([1, 4, 8]), n, p=[0.5, 0.2, 0.3])


def _uniform(rng: Generator, n: int) -> JobTable:
    """Up to half a node for up to a quarter of the time; 0.5 to 6 GB a core where nodes have 4."""
    cores = rng.integers(1, 33, n)
    memory = cores * rng.uniform(500, 6000, n)
    return jobs_of(cores, np.ceil(rng.uniform(300, 3 * HOUR, n)), memory_mb=memory)


def _uniform_large(rng: Generator, n: int) -> JobTable:
    """Up to a whole node for up to all of the time: most of a node's room is left by jobs that nothing fits beside."""
    cores = rng.integers(1, 65, n)
    memory = (cores * rng.uniform(500, 6000, n)).clip(0, 256_000)
    return jobs_of(cores, np.ceil(rng.uniform(300, 12 * HOUR, n)), memory_mb=memory)


def _hep(rng: Generator, n: int) -> JobTable:
    """1, 4 or 8 cores with 2 GB each, lognormal walltimes."""
    cores = _hep_cores(rng, n)
    return jobs_of(cores, _lognormal(rng, 2 * HOUR, 0.6, n, most=12 * HOUR), memory_mb=2000 * cores)


def _perlmutter(rng: Generator, n: int) -> JobTable:
    """ePIC's jobs: one core, 1.93 h in the median and 2.49 h at p90, so that hardly two follow each other in 4.05 h."""
    sigma = np.log(2.49 / 1.93) / 1.2816
    return jobs_of(
        np.ones(n, np.int64),
        _lognormal(rng, 1.93 * HOUR, sigma, n, most=4.05 * HOUR),
        memory_mb=rng.integers(1200, 2800, n),
    )


def _memory(rng: Generator, n: int) -> JobTable:
    """Few cores and much memory: it is full before the cores are."""
    memory = (9000 * np.exp(0.5 * rng.standard_normal(n))).clip(2000, 120_000)
    return jobs_of(rng.integers(1, 4, n), _lognormal(rng, 2 * HOUR, 0.6, n, most=12 * HOUR), memory_mb=memory)


def _gpu(rng: Generator, n: int) -> JobTable:
    """Four in ten take 1, 2 or 4 GPUs with some cores; the others cores alone."""
    gpus = np.where(rng.random(n) < 0.4, rng.choice(np.array([1, 2, 4]), n, p=[0.7, 0.2, 0.1]), 0)
    cores = np.where(gpus > 0, gpus * rng.integers(2, 13, n), rng.integers(1, 17, n))
    memory = cores * 2000 + gpus * 16_000
    return jobs_of(cores, _lognormal(rng, 2 * HOUR, 0.6, n, most=12 * HOUR), memory_mb=memory, gpus=gpus)


def _long_tail(rng: Generator, n: int) -> JobTable:
    """Minutes mostly, half a day sometimes: Pareto walltimes of index 1.1."""
    seconds = np.ceil((300 * (1 + rng.pareto(1.1, n))).clip(300, 12 * HOUR))
    cores = rng.integers(1, 17, n)
    return jobs_of(cores, seconds, memory_mb=cores * 2000)


def _wide(rng: Generator, n: int) -> JobTable:
    """One in ten is an MPI job of 2 to 16 nodes, the others are as HEP's."""
    jobs = _hep(rng, n)
    wide = rng.random(n) < 0.1
    return replace(jobs, nodes=np.where(wide, 2 ** rng.integers(1, 5, n), 1))


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="uniform",
            kind=kind_of(64, 12 * HOUR, memory_mb=256_000),
            seconds=12 * HOUR,
            draw=_uniform,
            small_kind=kind_of(32, 6 * HOUR, memory_mb=80_000),
        ),
        Family(
            name="uniform-large",
            kind=kind_of(64, 12 * HOUR, memory_mb=256_000),
            seconds=12 * HOUR,
            draw=_uniform_large,
            small_kind=kind_of(64, 6 * HOUR, memory_mb=256_000),
            small_scale=1,
        ),
        Family(
            name="hep",
            kind=kind_of(128, 12 * HOUR, memory_mb=262_144),
            seconds=12 * HOUR,
            draw=_hep,
            small_kind=kind_of(8, 6 * HOUR, memory_mb=17_000),
        ),
        Family(
            name="perlmutter",
            kind=kind_of(128, 4.05 * HOUR, memory_mb=262_144),
            seconds=4.05 * HOUR,
            draw=_perlmutter,
            small_kind=kind_of(2, 6 * HOUR, memory_mb=5000),
            small_scale=1.2,
        ),
        Family(
            name="memory",
            kind=kind_of(64, 12 * HOUR, memory_mb=256_000),
            seconds=12 * HOUR,
            draw=_memory,
            small_kind=kind_of(6, 6 * HOUR, memory_mb=24_000),
        ),
        Family(
            name="gpu",
            kind=kind_of(64, 12 * HOUR, memory_mb=256_000, gpus=4),
            seconds=12 * HOUR,
            draw=_gpu,
            small_kind=kind_of(24, 6 * HOUR, memory_mb=96_000, gpus=2),
        ),
        Family(
            name="long-tail",
            kind=kind_of(128, 12 * HOUR, memory_mb=262_144),
            seconds=12 * HOUR,
            draw=_long_tail,
            small_kind=kind_of(16, 6 * HOUR, memory_mb=32_000),
            small_scale=8,
        ),
        Family(
            name="wide",
            kind=kind_of(128, 12 * HOUR, memory_mb=262_144),
            seconds=12 * HOUR,
            draw=_wide,
            small_kind=kind_of(8, 6 * HOUR, memory_mb=17_000),
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classic:
    """A one-dimensional instance of the literature's recipe."""

    name: str
    sizes: Ints
    capacity: int
    optimum: int | None = None
    """Bins, where the recipe tells."""

    @property
    def jobs(self) -> JobTable:
        """The items as jobs that all run at the same time."""
        return jobs_of(self.sizes, np.ones(len(self.sizes)))

    @property
    def kind(self) -> NodeTable:
        """The bin."""
        return kind_of(self.capacity, 1.0)


def falkenauer_uniform(n: int, seed: int) -> Classic:
    """Whole sizes of 20 to 100, bins of 150."""
    rng = np.random.default_rng([seed, n, 1])
    return Classic(name=f"u{n}", sizes=rng.integers(20, 101, n), capacity=150)


def falkenauer_triplets(n: int, seed: int) -> Classic:
    """Bins of 1000 filled by three: the first 380 to 490, the second 250 to half of the rest, the third what is left."""
    rng = np.random.default_rng([seed, n, 2])
    first = rng.integers(380, 491, n // 3)
    second = rng.integers(250, (1000 - first) // 2 + 1)
    sizes = np.concatenate([first, second, 1000 - first - second])
    return Classic(name=f"t{n}", sizes=rng.permutation(sizes), capacity=1000, optimum=n // 3)


def scholl_1(n: int, capacity: int, least: int, seed: int) -> Classic:
    """Set 1: whole sizes of 1, 20 or 30 to 100; bins of 100, 120 or 150."""
    rng = np.random.default_rng([seed, n, capacity, least, 3])
    sizes = rng.integers(least, 101, n)
    return Classic(name=f"scholl1-n{n}-c{capacity}-w{least}", sizes=sizes, capacity=capacity)


def scholl_2(n: int, share: int, spread: float, seed: int) -> Classic:
    """Set 2: bins of 1000, sizes around 1000 / share (3, 5, 7, 9), give or take 20, 50 or 90 %."""
    rng = np.random.default_rng([seed, n, share, int(100 * spread), 4])
    mean = 1000 / share
    sizes = rng.integers(int(mean * (1 - spread)), int(mean * (1 + spread)) + 1, n).clip(1)
    return Classic(name=f"scholl2-n{n}-w{share}-b{int(100 * spread)}", sizes=sizes, capacity=1000)


def scholl_3(seed: int) -> Classic:
    """Set 3, the hard one: 200 sizes of 20 000 to 35 000, bins of 100 000."""
    rng = np.random.default_rng([seed, 5])
    return Classic(name="scholl3", sizes=rng.integers(20_000, 35_001, 200), capacity=100_000)


def classics(seeds: int) -> Iterator[Classic]:
    """Instances of all recipes, so many of each."""
    for seed in range(seeds):
        yield from (falkenauer_uniform(n, seed) for n in (120, 250, 500))
        yield from (falkenauer_triplets(n, seed) for n in (60, 120, 249))
        yield from (scholl_1(n, 150, least, seed) for n in (50, 200) for least in (1, 20, 30))
        yield from (
            scholl_2(100, share, spread, seed) for share in (3, 5, 7, 9) for spread in (0.2, 0.5, 0.9)
        )
        yield scholl_3(seed)
