"""Count what edges say was used, and tell of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.usage import UsageBy, UsageReport, UsageRow, UsageTable

DAYS = 30
"""Days told of unless said otherwise."""
_DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1)


async def count_usage(uow: UnitOfWork, *, edge: str, instance: str, report: UsageReport, now: float) -> None:
    """Count a report of usage within a transaction that holds the edge's row; one that was counted is passed over.

    It counts for the day on which it is told. Tasks that the edge was never given anything of are left out.
    """
    if report.sequence > await uow.accounting.last_report(edge, instance):
        day = int(now // _DAY_SECONDS)
        await uow.accounting.count(edge, instance, report.sequence, report.tasks, day=day)


async def report_usage(
    uow: UnitOfWork,
    *,
    by: UsageBy,
    first: date | None,
    last: date | None,
    sight: Sight | None,
    limit: int,
    now: float,
) -> UsageTable:
    """What was used in some days, the last thirty unless said otherwise, as far as somebody sees it.

    Raises:
        InvalidValue: the first day comes after the last.
    """
    last = last or datetime.fromtimestamp(now, UTC).date()
    first = first or max(_EPOCH, last - timedelta(days=min(DAYS - 1, (last - date.min).days)))
    if first > last:
        raise InvalidValue("from", f"{first} comes after {last}; give days as from=YYYY-MM-DD&to=YYYY-MM-DD")
    days = {"first": (first - _EPOCH).days, "last": (last - _EPOCH).days}
    async with uow:
        count, total = await uow.accounting.total(by, sight=sight, **days)
        lines = await uow.accounting.lines(by, sight=sight, limit=limit, **days)
    rows = tuple(UsageRow(key=_shown(by, line.key), name=line.name, amounts=line.amounts) for line in lines)
    return UsageTable(
        by=by,
        first=first.isoformat(),
        last=last.isoformat(),
        rows=rows,
        total=total,
        left_out=count - len(rows),
    )


def _shown(by: UsageBy, key: str) -> str:
    return (_EPOCH + timedelta(days=int(key))).isoformat() if by is UsageBy.DAY else key
