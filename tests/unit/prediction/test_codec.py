"""What was learnt as text: lossless, and hostile text is refused with what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hpcpanda.domain.errors import CorruptData
from hpcpanda.prediction.codec import MOST_CHARACTERS, decode, encode
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.tasks import JobEnd, TaskWords

NOW = 1_790_000_000.0


def rich() -> Knowledge:
    """Something of everything."""
    knowledge = Knowledge.fresh(NOW)
    knowledge.meet(1, TaskWords(walltime_s=1000.0, memory_mb=500.0), NOW)
    knowledge.meet(2, TaskWords(event_seconds=0.1), NOW + 1)
    knowledge.saw_jobs(1, [10.0, 20.0, 33.3, 0.1, 7.0, 8.0], NOW + 5)
    knowledge.saw_jobs(1, [11.0, 900.0], NOW + 6)
    knowledge.saw_jobs(1, [1000.0], NOW + 7, JobEnd.LIMIT)
    knowledge.saw_memory(1, 123.4, NOW + 8)
    knowledge.saw_events(2, [3, 4], [0.3, 0.7], NOW + 9)
    knowledge.saw_allocation(4, 3600.0, 77.0, NOW + 10)
    knowledge.saw_allocation(1, 60.0, 7.0, NOW + 11, started=False)
    knowledge.saw_start_up(6.5, NOW + 12)
    knowledge.saw_held(4, NOW, NOW + 9000.0, "debug")
    knowledge.saw_preemption(NOW + 9000.0, "debug")
    return knowledge


def test_there_and_back_is_the_same():
    """To the last bit, with the order in which tasks are forgotten."""
    knowledge = rich()
    again = decode(encode(knowledge))
    assert again == knowledge
    assert list(again.tasks) == list(knowledge.tasks)
    assert encode(again) == encode(knowledge)
    assert again.forecast(NOW + 1e5) == knowledge.forecast(NOW + 1e5)
    assert decode(encode(Knowledge.fresh(0.0))) == Knowledge.fresh(0.0)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(encode(rich()))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.pop("waits"), "no 'waits'"),
        (lambda d: d.update(tasks={}), "tasks"),
        (lambda d: d.update(tasks=[1]), r"tasks\[0\] is not an object"),
        (lambda d: d.update(tasks=d["tasks"] * 200), "tasks"),
        (lambda d: d.update(landmark=1e300), "landmark"),
        (lambda d: d.update(landmark=True), "landmark"),
        (lambda d: d.update(half_life_s=0), "half_life_s"),
        (lambda d: d.update(risk=0.0), "risk"),
        (lambda d: d["tasks"][0].update(task="1"), "task"),
        (lambda d: d["tasks"][0].update(task=-1), "task"),
        (lambda d: d["tasks"][0].update(words=[1.0]), "words"),
        (lambda d: d["tasks"][0].update(words=[-1.0, None, None]), "walltime_s"),
        (lambda d: d["tasks"][0].update(core_seconds="much"), "core_seconds"),
        (lambda d: d["tasks"][0]["ends"].update(ended=1.5), "ended"),
        (lambda d: d["tasks"][0]["calibration"].update(exceeded=99), "exceeded"),
        (lambda d: d["tasks"][0]["events"].update(weights=[1.0]), "weights"),
        (lambda d: d["start_up"].update(buckets=[10**6]), "bucket"),
        (lambda d: d["start_up"].update(buckets=[None]), "bucket"),
        (lambda d: d["start_up"].update(weights=[-1.0]), "weights"),
        (lambda d: d["start_up"].update(weights=[1e200]), "weights"),
        (lambda d: d["start_up"].update(squares=0.0), "squares"),
        (lambda d: d["start_up"].update(buckets=list(range(10**4))), "buckets"),
        (lambda d: d["hazards"][0].update(node_hours=[0.0]), "168"),
        (lambda d: d["hazards"][0].update(partition="x" * 1000), "partition"),
        (lambda d: d["waits"][0].update(nodes=1000), "nodes"),
    ],
)
def test_what_breaks_the_format_is_refused_by_name(change: Callable[[dict[str, Any]], object], says: str):
    """The message tells where it is wrong."""
    with pytest.raises(CorruptData, match=says):
        decode(changed(change))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", "{", '{"format": NaN}', "[" * 100_000, '{"format": 1' + "0" * 10_000 + "}", "{}"],
)
def test_what_is_no_knowledge_at_all_is_refused(text: str):
    """Also JSON that is made to hurt its reader."""
    with pytest.raises(CorruptData):
        decode(text)


def test_a_text_that_is_too_long_is_not_read():
    """Before anything of it is looked at."""
    with pytest.raises(CorruptData, match="characters"):
        decode(" " * (MOST_CHARACTERS + 1))
