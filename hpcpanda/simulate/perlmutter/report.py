"""The Perlmutter preset for people: rows of tables, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcpanda.simulate.perlmutter.results import CoreHours, PerlmutterResult, PolicyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = (
    "policy",
    "useful",
    "lost",
    "idle",
    "start-up",
    "lost of work",
    "events a day",
    "core-h a day",
    "mean cost of finished",
    "p99",
    "distance",
    "never",
)
"""Of :func:`rows`. The first four shares are of the core-hours held; costs of finished events are relative to those of the
submitted, and the distance is that of Kolmogorov and Smirnov; *never* are jobs, or events, that no allocation can hold."""

CHECK_COLUMNS: Final = ("published", "is", "simulated as today", "")
"""Of :func:`check_rows`."""

READING_COLUMNS: Final = (
    "reading",
    "killed",
    "core-h a kill",
    "lost of work",
    "jobs a pilot",
    "fits",
)
"""Of :func:`reading_rows`."""

_PARTS: Final = (
    ("useful", "useful", "#009e73"),
    ("lost at the wall or in the drain", "lost_wall", "#d55e00"),
    ("lost with a node", "lost_node", "#cc79a7"),
    ("lost to time-outs", "lost_timeout", "#e69f00"),
    ("start-up", "startup", "#56b4e9"),
    ("idle", "idle", "#cccccc"),
)
"""Label, field and colour (those of M. Okabe and K. Ito, which the colour-blind tell apart)."""


def rows(result: PerlmutterResult) -> list[tuple[str, ...]]:
    """A row a policy, ready to print; see ``COLUMNS``."""
    return [_row(policy) for policy in result.policies]


def check_rows(result: PerlmutterResult) -> list[tuple[str, ...]]:
    """Published numbers beside those of the policy "as today"; see ``CHECK_COLUMNS``."""
    return [
        (c.what, f"{c.published:.3f}", f"{c.simulated:.3f}", "fitted" if c.fitted else "predicted")
        for c in result.checks
    ]


def reading_rows(result: PerlmutterResult) -> list[tuple[str, ...]]:
    """Readings of the published numbers, each simulated; see ``READING_COLUMNS``."""
    return [
        (
            r.what,
            f"{r.killed_of_run:.1%}",
            f"{r.hours_a_kill:.2f}",
            f"{r.lost_share:.1%}",
            f"{r.jobs_a_pilot:.2f}",
            "yes" if r.fits else "no",
        )
        for r in result.readings
    ]


def _row(policy: PolicyResult) -> tuple[str, ...]:
    hours, bias = policy.core_hours, policy.bias
    never = policy.jobs_never + len(policy.failed)
    return (
        policy.policy,
        _share(hours.useful, hours),
        _share(hours.lost, hours),
        _share(hours.idle, hours),
        _share(hours.startup, hours),
        f"{hours.lost_of_work:.2%}",
        f"{policy.events_a_day:,.0f}",
        f"{policy.useful_a_day:,.0f}",
        f"{bias.finished.mean_s / bias.submitted.mean_s - 1:+.2%}",
        f"{bias.finished.p99_s / bias.submitted.p99_s - 1:+.2%}",
        f"{bias.distance:.5f}",
        f"{never:,}",
    )


def _share(part: float, hours: CoreHours) -> str:
    return f"{part / hours.held:.2%}" if hours.held else "-"


def draw_perlmutter(result: PerlmutterResult, folder: Path) -> list[Path]:
    """Write ``perlmutter-core-hours.png`` and ``perlmutter-bias.png``.

    Raises:
        ImportError: matplotlib is missing; it is in the extra ``examples``.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, size, draw in (
        ("core-hours", (9.0, 3.2), _draw_core_hours),
        ("bias", (9.0, 4.2), _draw_bias),
    ):
        figure = Figure(figsize=size, layout="constrained")
        draw(result, figure.add_subplot())
        path = folder / f"perlmutter-{name}.png"
        figure.savefig(path, dpi=130)
        pictures.append(path)
    return pictures


def _draw_core_hours(result: PerlmutterResult, axes: Axes) -> None:
    """A bar a policy: where the core-hours of its allocations went."""
    for row, policy in enumerate(result.policies):
        hours, left = policy.core_hours, 0.0
        for label, field, colour in _PARTS:
            width = 100 * getattr(hours, field) / hours.held
            axes.barh(row, width, left=left, color=colour, label=label if row == 0 else None)
            left += width
        share = f"{hours.useful_of_held:.1%} useful"
        axes.text(1.0, row, share, va="center", color="white", fontweight="bold")
    axes.set_yticks(range(len(result.policies)), [p.policy for p in result.policies])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the core-hours held, %")
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)


def _draw_bias(result: PerlmutterResult, axes: Axes) -> None:
    """Shares of events above a cost, among the finished of each policy relative to the submitted."""
    lines = ("-", "--", "-.", "-")
    colours = ("#d55e00", "#e69f00", "#0072b2", "#009e73")
    for policy, line, colour in zip(result.policies, lines, colours, strict=True):
        submitted = dict(policy.bias.submitted.curve)
        shares = [100 * (1 - share) for share, _ in policy.bias.finished.curve]
        costs = [100 * cost / submitted[share] for share, cost in policy.bias.finished.curve]
        axes.plot(shares, costs, line, color=colour, label=policy.policy)
    axes.axhline(100, color="black", linewidth=0.6)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("share of events that are costlier, %  (the slowest events are to the right)")
    axes.set_ylabel("cost among the finished,\n% of that among the submitted")
    axes.set_ylim(0, 110)
    axes.legend(frameon=False, loc="lower left")
