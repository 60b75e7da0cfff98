"""What people would do while the demo runs: record an entry, move a reminder. Plain SQL, as any app writes it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Engine, text

from kitaab_jobs.devstack.sample import nearly_there
from kitaab_jobs.timing import local_date, local_time

_ENTRY = text(
    """
    INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, created_by_user_id)
    VALUES (:user_id, :deed_item_id, :entry_date, :count_value, :user_id)
    ON CONFLICT (user_id, deed_item_id, entry_date)
        DO UPDATE SET count_value = entries.count_value + excluded.count_value
    """
)

_SOME_REMINDERS = text(
    """
    SELECT n.notification_id, n.timezone FROM notifications AS n JOIN users AS u USING (user_id)
    WHERE n.is_active AND u.is_active AND u.deleted_at IS NULL
      AND (n.last_due_date IS NULL OR n.last_due_date < current_date - 1)
    ORDER BY n.notification_id LIMIT :limit
    """
)

_MOVE_REMINDER = text("UPDATE notifications SET notification_time = :time WHERE notification_id = :id")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry that somebody recorded, and the merit that is complete with it."""

    user_id: int
    merit_id: int
    merit: str
    amount: Decimal


class PeopleAtWork:
    """Acts, one step at a time, as the people of the sample data. `engine` is the owner's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._entries = self._one_after_another()

    def record_entry(self, now: dt.datetime) -> Recorded | None:
        """Record the entry that somebody's merit still lacks; None when nobody is that near any more."""
        near = next(self._entries, None)
        if near is None:
            return None
        with self._engine.begin() as connection:
            connection.execute(
                _ENTRY,
                {
                    "user_id": near.user_id,
                    "deed_item_id": near.deed_item_id,
                    "entry_date": local_date(now, near.timezone),
                    "count_value": near.missing,
                },
            )
        return Recorded(near.user_id, near.merit_id, near.merit_name, near.missing)

    def move_reminders(self, now: dt.datetime, people: int) -> int:
        """Let some people, each in their zone, be reminded at the next full minute but one."""
        soon = (now + dt.timedelta(seconds=90)).replace(second=0, microsecond=0)
        with self._engine.begin() as connection:
            rows = connection.execute(_SOME_REMINDERS, {"limit": people}).all()
            for row in rows:
                time = local_time(soon, row.timezone)
                connection.execute(_MOVE_REMINDER, {"id": row.notification_id, "time": time})
        return len(rows)

    def completed_at(self, merit_id: int) -> dt.datetime | None:
        """Return when the platform found the merit complete."""
        with self._engine.connect() as connection:
            found: dt.datetime | None = connection.scalar(
                text("SELECT completed_at FROM merits WHERE merit_id = :id"), {"id": merit_id}
            )
        return found

    def _one_after_another(self) -> Iterator[nearly_there.Near]:
        with self._engine.connect() as connection:
            found = nearly_there.find(connection, limit=200)
        yield from found
