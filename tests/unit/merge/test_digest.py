"""Digests depend on content alone, and on all of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.events.columns import Items
from hpcpanda.merge import digest, digest_bytes, digest_columns


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_bytes_in_pieces_have_the_digest_of_the_whole(data: bytes, cuts: list[int]) -> None:
    """How bytes are handed over does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "BLOCK", 16)
        bounds = [0, *sorted(cuts), len(data)]
        pieces = [data[a:b] for a, b in pairwise(bounds)]
        assert digest_bytes(b"".join(pieces)) == digest_bytes(pieces)


def test_the_digest_of_known_content_never_changes() -> None:
    """The format of the digest is fixed."""
    import hashlib

    def block(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    expected = hashlib.sha256(b"[3]\n" + block(b"abc")).hexdigest()
    assert digest_bytes(b"abc") == f"sha256-blocks:{expected}"
    head = b'["x","<i2",[2],null,8]\n' + block(bytes([1, 0, 2, 0, 3, 0, 4, 0]))
    columns = {"x": np.array([[1, 2], [3, 4]], dtype=">i2")}
    assert digest_columns(columns) == f"sha256-blocks:{hashlib.sha256(head).hexdigest()}"


def test_every_fact_of_a_column_counts() -> None:
    """Another name, type, shape, counter, order or value is another digest; the order of names is not."""
    x, n = np.arange(4, dtype="<i4"), np.array([1, 3], dtype="<i4")
    base = {"n": n, "m": n, "x": Items(x, "n")}
    others = [
        {"n": n, "m": n, "y": Items(x, "n")},
        {"n": n, "m": n, "x": Items(x, "m")},
        {"n": n, "m": n, "x": Items(x.astype("<u4"), "n")},
        {"n": n, "m": n, "x": Items(x[::-1], "n")},
        {"n": n, "m": n, "x": x.reshape(2, 2)},
        {"n": n, "x": Items(x, "n")},
    ]
    digests = {digest_columns(c) for c in [base, *others]}
    assert len(digests) == 1 + len(others)
    assert digest_columns(dict(reversed(base.items()))) == digest_columns(base)


def test_columns_that_do_not_fit_are_refused() -> None:
    """A serial run is held to the rules of ranges."""
    with pytest.raises(InvalidValue):
        digest_columns({"x": Items(np.zeros(3), "n")})
    with pytest.raises(InvalidValue):
        digest_columns({"x": np.zeros(3), "y": np.zeros(2)})
