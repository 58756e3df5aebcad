"""Colours and marks that the pictures of a simulation share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the palette by Okabe and Ito (https://jfly.uni-koeln.de/color/), which people tell apart who do not see all colours.
HOST: Final = "#BBBBBB"
HELD: Final = "#0072B2"
USEFUL: Final = "#009E73"
OVERHEAD: Final = "#56B4E9"
LOST: Final = "#D55E00"
PREEMPTED: Final = "#E69F00"

ENDINGS: Final = {
    "ended": (HELD, "ended by us"),
    "preempted": (PREEMPTED, "preempted"),
    "killed": (LOST, "killed: at the wall, or with a node"),
}
"""Colour and words for how an allocation ended."""


def plain(axes: Axes) -> None:
    """Without the lines that say nothing."""
    axes.spines[["top", "right"]].set_visible(False)


def title(axes: Axes, text: str) -> None:
    """At the left, small: it is a sentence."""
    axes.set_title(text, loc="left", fontsize=10)
