"""Forgetting: what was seen long ago counts less, since machines and payloads change. Pure.

Weights grow instead of shrinking (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay: a practical time decay model for
streaming systems", IEEE ICDE 2009): what is seen later is entered with more weight, and nothing else has to be touched. A
value that is seen now has the weight :meth:`Decay.weight`, by which sums of weights are divided where their size
matters. Now and then all weights are scaled down together, see :data:`REBASE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcpanda.domain.validation import require_between

HALF_LIFE_S: Final = 14 * 86_400.0
REBASE: Final = 2.0**10
"""Weights are scaled down when that of now has reached this."""
FORGOTTEN: Final = 2.0**-20
"""What has come down to this share of the weight of now, twenty half-lives ago, is left out of sums."""

_MOST: Final = 200.0
"""Half-lives that are told apart: the square of two to this power is a number still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """How weights depend on time."""

    landmark: float
    """When a value has the weight 1, Unix seconds."""
    half_life_s: float = HALF_LIFE_S
    """After so long a value counts half, seconds."""

    def __post_init__(self) -> None:
        require_between("landmark", self.landmark, -1e12, 1e12)
        require_between("half_life_s", self.half_life_s, 1.0, 1e12)

    def weight(self, at: float) -> float:
        """Of what is seen at a time."""
        halves = (at - self.landmark) / self.half_life_s
        return float(2.0 ** min(max(halves, -_MOST), _MOST))
