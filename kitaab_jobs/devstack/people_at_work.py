"""What people would do while the demo runs: record an entry, move a reminder. Plain SQL, as any app writes it."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Engine, text

from kitaab_jobs.devstack.sample import NearlyThere, nearly_there
from kitaab_jobs.timing import local_time

_ENTRY = text(
    """
    INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, scale_value_id, created_by_user_id)
    VALUES (:user_id, :deed_item_id, :entry_date, :count_value, :scale_value_id, :user_id)
    ON CONFLICT (user_id, deed_item_id, entry_date) DO NOTHING
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


class PeopleAtWork:
    """Acts, one step at a time, as the people of the sample data. `engine` is the owner's."""

    def __init__(self, engine: Engine, now: dt.datetime) -> None:
        self._engine = engine
        with engine.connect() as connection:
            self._near = iter(nearly_there(connection, 500, now=now))
        self._next: NearlyThere | None = None

    def record_entry(self) -> NearlyThere | None:
        """Record the entry that somebody's merit still lacks; None when nobody is that near any more.

        Where the connection is lost, the next call is for the same person: the entry is added once.
        """
        self._next = near = self._next or next(self._near, None)
        if near is None:
            return None
        with self._engine.begin() as connection:
            connection.execute(
                _ENTRY,
                {
                    "user_id": near.user_id,
                    "deed_item_id": near.deed_item_id,
                    "entry_date": near.day,
                    "count_value": None if near.scale_value_id else near.missing,
                    "scale_value_id": near.scale_value_id,
                },
            )
        self._next = None
        return near

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
