"""Pictures of a simulation, drawn with matplotlib, which comes with the extra ``examples``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.pictures.holes import draw_holes
from hpcpanda.simulate.pictures.policies import draw_policies
from hpcpanda.simulate.pictures.time import draw_day, draw_utilisation
from hpcpanda.simulate.results import SimulationResult


def draw_pictures(result: SimulationResult, folder: Path) -> tuple[Path, ...]:
    """Draw all there is to draw; the files, in the order in which they are best looked at.

    Args:
        result: of at least one policy, with its series.
        folder: is made when it is not there; files of the same names are replaced.

    Raises:
        InvalidValue: matplotlib is not installed, or the folder cannot be written.
    """
    require_matplotlib()
    pictures = {
        "utilisation.png": draw_utilisation,
        "day.png": draw_day,
        "holes.png": draw_holes,
        "policies.png": draw_policies,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in pictures.items():
            draw(result).savefig(folder / name, dpi=130)
    except OSError as error:
        raise InvalidValue(str(folder), f"cannot be written: {error.strerror}") from error
    return tuple(folder / name for name in pictures)


def require_matplotlib() -> None:
    """Say how to get matplotlib, if it is not here.

    Raises:
        InvalidValue: it is not.
    """
    if find_spec("matplotlib") is None:
        raise InvalidValue("pictures", "need matplotlib: pip install 'hpcpanda[examples]'")
