"""Knowledge as JSON and back, without loss. What is read may be old, damaged or hostile: it is checked to the last number."""

from __future__ import annotations

import json
import math
from typing import Final, NoReturn

from hpcpanda.domain.errors import CorruptData, InvalidValue
from hpcpanda.prediction.decay import Decay
from hpcpanda.prediction.hazard import HOURS, Hazard
from hpcpanda.prediction.knowledge import MOST_PARTITIONS, MOST_TASKS, Knowledge
from hpcpanda.prediction.observations import Observations
from hpcpanda.prediction.sketch import FIRST_BUCKET, LAST_BUCKET, MOST_BUCKETS, Sketch
from hpcpanda.prediction.tasks import Calibration, JobEnd, TaskKnowledge, TaskWords
from hpcpanda.prediction.waits import LAST_NODES, LAST_WALLTIME, QueueWaits

FORMAT: Final = 1
MOST_CHARACTERS: Final = 64 * 2**20
"""A longer text is refused unread."""
_MOST_COUNT: Final = 2**63 - 1
_MOST_NUMBER: Final = 1e100
"""Sums and squares of what is smaller stay numbers."""
_NAME_LENGTH: Final = 256

Json = dict[str, object]


def encode(knowledge: Knowledge) -> str:
    """Knowledge as JSON text, format 1."""
    return json.dumps(
        {
            "format": FORMAT,
            "landmark": knowledge.decay.landmark,
            "half_life_s": knowledge.decay.half_life_s,
            "risk": knowledge.risk,
            "tasks": [_of_task(number, task) for number, task in knowledge.tasks.items()],
            "hazards": [
                {"partition": name, "preemptions": h.preemptions, "node_hours": h.node_hours}
                for name, h in knowledge.hazards.items()
            ],
            "waits": [
                {"nodes": nodes, "walltime": walltime, **_of_observations(waits)}
                for (nodes, walltime), waits in knowledge.waits.seen.items()
            ],
            "start_up": _of_sketch(knowledge.start_up),
            "calibration": _of_calibration(knowledge.calibration),
        },
        allow_nan=False,
        separators=(",", ":"),
    )


def decode(text: str) -> Knowledge:
    """Knowledge from the text that :func:`encode` gave.

    Raises:
        CorruptData: it is none, or of another format; the message says what and where. Learning then starts afresh.
    """
    if len(text) > MOST_CHARACTERS:
        raise CorruptData(f"what was learnt is not read: it has more than {MOST_CHARACTERS} characters")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise CorruptData(f"what was learnt is not JSON: {problem}") from problem
    place = _Place(found, "knowledge")
    if (written := place.get("format")) != FORMAT:
        raise CorruptData(f"what was learnt has format {written!r:.20}, this program reads {FORMAT}")
    try:
        return _knowledge(place)
    except InvalidValue as problem:
        raise CorruptData(f"what was learnt breaks a rule: {problem}") from problem


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


class _Place:
    """A JSON object, and where it stands."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            self.refuse(f"{where} is not an object")
        self._value: Json = value
        self._where = where

    @staticmethod
    def refuse(problem: str) -> NoReturn:
        raise CorruptData(f"what was learnt cannot be understood: {problem}")

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def get(self, name: str) -> object:
        """A member."""
        if name not in self._value:
            self.refuse(f"{self._where} has no {name!r}")
        return self._value[name]

    def at(self, name: str) -> _Place:
        """A member that is an object."""
        return _Place(self.get(name), f"{self._where}.{name}")

    def number(self, name: str, low: float = 0.0, high: float = math.inf) -> float:
        """A member that is a finite number within bounds."""
        return self._number(self.get(name), name, low, high)

    def optional(self, name: str) -> float | None:
        """A member that is a number, or null."""
        return None if self.get(name) is None else self.number(name)

    def count(self, name: str, low: int = 0, high: int = _MOST_COUNT) -> int:
        """A member that is a whole number within bounds."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(f"{self._where}.{name} is not a whole number in {low}..{high}")
        return value

    def text(self, name: str) -> str:
        """A member that is a short text."""
        value = self.get(name)
        if not isinstance(value, str) or len(value) > _NAME_LENGTH:
            self.refuse(f"{self._where}.{name} is not a text of at most {_NAME_LENGTH} characters")
        return value

    def items(self, name: str, most: int) -> list[object]:
        """A member that is a list of limited length."""
        value = self.get(name)
        if not isinstance(value, list) or len(value) > most:
            self.refuse(f"{self._where}.{name} is not a list of at most {most}")
        return value

    def numbers(self, name: str, most: int) -> list[float]:
        """A member that is a list of numbers, none negative."""
        return [self._number(v, f"{name}[{i}]", 0.0, math.inf) for i, v in enumerate(self.items(name, most))]

    def places(self, name: str, most: int) -> list[_Place]:
        """A member that is a list of objects."""
        return [_Place(v, f"{self._where}.{name}[{i}]") for i, v in enumerate(self.items(name, most))]

    def _number(self, value: object, name: str, low: float, high: float) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _MOST_NUMBER:
            self.refuse(f"{self._where}.{name} is not a finite number")
        if not low <= value <= high:
            self.refuse(f"{self._where}.{name} is {value:g}, outside {low:g}..{high:g}")
        return float(value)


def _knowledge(place: _Place) -> Knowledge:
    landmark = place.number("landmark", -1e12, 1e12)
    knowledge = Knowledge(
        decay=Decay(landmark=landmark, half_life_s=place.number("half_life_s")),
        risk=place.number("risk"),
        start_up=_sketch(place.at("start_up")),
        calibration=_calibration(place.at("calibration")),
        waits=QueueWaits(
            seen={
                (p.count("nodes", high=LAST_NODES), p.count("walltime", high=LAST_WALLTIME)): _observations(p)
                for p in place.places("waits", (LAST_NODES + 1) * (LAST_WALLTIME + 1))
            }
        ),
    )
    for entry in place.places("tasks", MOST_TASKS):
        knowledge.tasks[entry.count("task")] = _task(entry)
    for entry in place.places("hazards", MOST_PARTITIONS):
        knowledge.hazards[entry.text("partition")] = _hazard(entry)
    return knowledge


def _of_task(number: int, task: TaskKnowledge) -> Json:
    words = task.words
    return {
        "task": number,
        "last_seen": task.last_seen,
        "words": [words.walltime_s, words.memory_mb, words.event_seconds],
        "events": _of_sketch(task.events),
        "core_seconds": task.core_seconds,
        "events_seen": task.events_seen,
        "walltimes": _of_observations(task.walltimes),
        "memory": _of_observations(task.memory),
        "ends": {end.value: count for end, count in task.ends.items()},
        "calibration": _of_calibration(task.calibration),
    }


def _task(place: _Place) -> TaskKnowledge:
    words = place.items("words", 3)
    if len(words) != 3:
        place.refuse("a task's words are not three")
    said = _Place(dict(zip(("walltime_s", "memory_mb", "event_seconds"), words, strict=True)), "words")
    ends = place.at("ends")
    return TaskKnowledge(
        words=TaskWords(
            walltime_s=said.optional("walltime_s"),
            memory_mb=said.optional("memory_mb"),
            event_seconds=said.optional("event_seconds"),
        ),
        last_seen=place.number("last_seen", -1e12, 1e12),
        events=_sketch(place.at("events")),
        core_seconds=place.number("core_seconds"),
        events_seen=place.count("events_seen"),
        walltimes=_observations(place.at("walltimes")),
        memory=_observations(place.at("memory")),
        ends={end: ends.count(end.value) for end in JobEnd if end.value in ends},
        calibration=_calibration(place.at("calibration")),
    )


def _of_sketch(sketch: Sketch) -> Json:
    return {
        "buckets": list(sketch.weights),
        "weights": list(sketch.weights.values()),
        "squares": sketch.squares,
    }


def _sketch(place: _Place) -> Sketch:
    buckets = place.items("buckets", MOST_BUCKETS)
    weights = place.numbers("weights", MOST_BUCKETS)
    sketch = Sketch(squares=place.number("squares"))
    if len(buckets) != len(weights):
        place.refuse("a sketch has not as many weights as buckets")
    for index, weight in zip(buckets, weights, strict=True):
        if not isinstance(index, int) or not FIRST_BUCKET <= index <= LAST_BUCKET or weight <= 0:
            place.refuse(f"{index!r:.20} with weight {weight:g} is no bucket of a sketch")
        sketch.weights[index] = weight
    if bool(sketch.weights) != (sketch.squares > 0):
        place.refuse("the squares of a sketch do not belong to its weights")
    return sketch


def _of_observations(seen: Observations) -> Json:
    return {"ended": _of_sketch(seen.ended), "censored": _of_sketch(seen.censored)}


def _observations(place: _Place) -> Observations:
    return Observations(ended=_sketch(place.at("ended")), censored=_sketch(place.at("censored")))


def _of_calibration(calibration: Calibration) -> Json:
    return {
        "promised": calibration.promised,
        "exceeded": calibration.exceeded,
        "promised_s": calibration.promised_s,
        "used_s": calibration.used_s,
    }


def _calibration(place: _Place) -> Calibration:
    promised = place.count("promised")
    return Calibration(
        promised=promised,
        exceeded=place.count("exceeded", high=promised),
        promised_s=place.number("promised_s"),
        used_s=place.number("used_s"),
    )


def _hazard(place: _Place) -> Hazard:
    hazard = Hazard(
        preemptions=place.numbers("preemptions", HOURS), node_hours=place.numbers("node_hours", HOURS)
    )
    if not len(hazard.preemptions) == len(hazard.node_hours) == HOURS:
        place.refuse(f"a hazard has not {HOURS} hours")
    return hazard
