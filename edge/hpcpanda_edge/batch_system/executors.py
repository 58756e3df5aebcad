"""PSI/J's executors, made to pass on any option and to read any answer."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable, Collection
from typing import IO, Any, Final

from hpcpanda.domain.errors import InvalidValue, SchedulerFailed

_QUOTED_TWICE: Final = re.compile(
    r"""(?m)^(#SBATCH --[\w-]+(?==)|#PBS -\w+(?= )|#BSUB -\w+(?= ))([ =])"('.*')"$"""
)


def batch_executor(name: str, config: Any) -> Any:  # noqa: ANN401 - PSI/J is not typed
    """PSI/J's executor, made to pass on any option; those for Slurm and LSF are made to read any answer."""
    import psij
    from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutor

    executor: Any = psij.JobExecutor.get_instance(name, config=config)
    if not isinstance(executor, BatchSchedulerExecutor):
        raise InvalidValue("scheduler.executor", f"PSI/J's {name} does not submit job scripts")
    generate = executor.generate_submit_script

    def generate_submit_script(job: Any, context: dict[str, object], file: IO[str]) -> None:  # noqa: ANN401
        """PSI/J quotes for the shell inside quotes; batch systems take the inner ones for part of the value."""
        script = io.StringIO()
        generate(job, context, script)
        file.write(_QUOTED_TWICE.sub(_option, script.getvalue()))

    executor.generate_submit_script = generate_submit_script
    if name == "lsf":
        executor.parse_status_output = _without_reasons(executor.parse_status_output)
    if name != "slurm":
        return executor

    def status_command(_: Collection[str]) -> list[str]:
        return ["squeue", "--me", "--states=all", "--Format=JobArrayID:64,StateCompact:16"]

    def parse(exit_code: int, out: str) -> dict[str, Any]:
        """Slurm's reasons are many and may hold blanks; PSI/J gives up at one that it does not know."""
        if exit_code != 0:
            raise SchedulerFailed(f"squeue does not answer: {out.strip()}")
        known = executor._STATE_MAP
        rows = (line.split() for line in out.splitlines()[1:] if line.strip())
        return {row[0]: psij.JobStatus(known.get(row[1], psij.JobState.ACTIVE)) for row in rows}

    executor.get_status_command = status_command
    executor.parse_status_output = parse
    return executor


def _without_reasons(parse: Callable[[int, str], dict[str, Any]]) -> Callable[[int, str], dict[str, Any]]:
    """PSI/J's parser of LSF's answer stumbles over a job that says why it ended; nobody here reads why."""

    def parse_records(exit_code: int, out: str) -> dict[str, Any]:
        if exit_code != 0:
            return parse(exit_code, out)
        answer = json.loads(out)
        for record in answer["RECORDS"]:
            record.update({key: "" for key in record if key.endswith("_REASON")})
        return parse(exit_code, json.dumps(answer))

    return parse_records


def _option(line: re.Match[str]) -> str:
    """An option of a batch system; with an empty value it is one without."""
    name, between, quoted = line.groups()
    value = "".join(shlex.split(quoted)).replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}{between}"{value}"' if value else str(name)
