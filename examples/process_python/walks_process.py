"""A process payload: a random walk an event, a line of text each."""

from __future__ import annotations

import os
import random
from pathlib import Path


def walk(seed: int, event: int) -> str:
    """Where a walk of 100 steps ends."""
    rng = random.Random(f"{seed}/{event}")  # a string seeds the same on every machine
    return f"{event} {sum(rng.choice((-1, 1)) for _ in range(100))}\n"


def main() -> None:
    """Answer requests until there are no more."""
    with (
        os.fdopen(int(os.environ["HPCPANDA_IN"]), encoding="utf-8") as requests,
        os.fdopen(int(os.environ["HPCPANDA_OUT"]), "w", encoding="utf-8") as replies,
    ):
        for request in requests:
            word, *rest = request.rstrip("\n").split(" ", 4)
            if word == "bye":
                return
            if word != "run":
                continue
            first, last, seed, output = int(rest[0]), int(rest[1]), int(rest[2]), rest[3]
            try:
                with Path(output).open("w", encoding="utf-8") as file:
                    file.writelines(walk(seed, event) for event in range(first, last))
                reply = "done"
            except OSError as error:
                reply = f"failed {error}"
            print(reply, file=replies, flush=True)


if __name__ == "__main__":
    main()
