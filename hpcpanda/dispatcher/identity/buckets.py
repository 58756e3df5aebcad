"""Token buckets: so many requests a second, and a burst of more."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from hpcpanda.domain.errors import TooManyRequests

MAX_KEYS = 20_000
"""Most callers remembered; those not heard of for longest are forgotten first."""


class Buckets:
    """One bucket a caller, in memory: a replica of the dispatcher counts only what it sees.

    A bucket holds at most ``burst`` tokens and is filled by ``rate`` a second; a request takes one (the token bucket of
    RFC 2697, without its colours).

    Args:
        rate: requests a second in the long run.
        burst: requests at once after a silence.
    """

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def charge(self, key: str, tokens: float, *, now: float) -> None:
        """Take tokens for what has turned out to be more work than one request; there may be less than none left."""
        self._levels[key] = (self._level(key, now) - tokens, now)

    def take(self, key: str, *, now: float) -> float:
        """Take a token; the answer is 0, or, when there is none, the seconds until there is."""
        level = self._level(key, now)
        wait_s = self._wait(level)
        self._levels[key] = (level - 1.0 if wait_s == 0.0 else level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > MAX_KEYS:
            self._levels.popitem(last=False)
        return wait_s

    def require(self, key: str, *, now: float, take: bool = True) -> None:
        """Take a token, or only look whether there is one.

        Raises:
            TooManyRequests: there is none.
        """
        wait_s = self.take(key, now=now) if take else self._wait(self._level(key, now))
        if wait_s:
            raise TooManyRequests(
                f"more than {self._rate:g} requests a second; try again in {wait_s:.1f} s",
                retry_after_s=wait_s,
            )

    def _wait(self, level: float) -> float:
        return 0.0 if level >= 1.0 else (1.0 - level) / self._rate

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.get(key, (self._burst, now))
        return min(self._burst, level + max(0.0, now - at) * self._rate)


def network_of(address: str) -> str:
    """The bucket of an address: an IPv6 network of 64 bits is one caller, since anybody has that many addresses."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
