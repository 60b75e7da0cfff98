"""Two people with deeds, and what an import finds and leaves in their database."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

from sqlalchemy import Connection, text

from kitaab_jobs.imports.jobs import run
from kitaab_jobs.imports.reader import Sheet
from kitaab_jobs.imports.report import Report

# In Karachi it is the 23rd already, in New York still the 22nd.
NOW = dt.datetime(2026, 11, 22, 20, 0, tzinfo=dt.UTC)
HEADER = "email,deed,item,date,value,note\n"

PEOPLE = """
INSERT INTO users (email, password_hash, full_name, timezone, deleted_at) VALUES
    ('Amina@example.org', '-', 'Amina', 'Asia/Karachi', NULL),
    ('bilal@example.org', '-', 'Bilal', 'America/New_York', NULL),
    ('mars@example.org', '-', 'Mars', 'Mars/Base', NULL),
    ('gone@example.org', '-', 'Gone', 'UTC', now());
INSERT INTO deeds (user_id, category_type, name, deleted_at)
    SELECT user_id, 'hasanaat', name, CASE WHEN name = 'Fasting' THEN now() END
    FROM users, unnest(ARRAY['Salah', 'Quran', 'Fasting']) AS name;
INSERT INTO deed_items (deed_id, level, name, value_type, deleted_at)
    SELECT deed_id, 1, item.name, item.type::value_type_enum, CASE WHEN item.name = 'Duha' THEN now() END
    FROM deeds JOIN (VALUES
        ('Salah', 'Fajr', 'count'), ('Salah', 'Witr', 'scale'), ('Salah', 'Duha', 'count'),
        ('Quran', 'Pages', 'count'), ('Quran', 'Hifz/Review', 'count'), ('Quran', 'Caf\u00e9', 'count'),
        ('Fasting', 'Monday', 'count')
    ) AS item (deed, name, type) ON item.deed = deeds.name;
INSERT INTO deed_items (deed_id, parent_deed_item_id, level, name, value_type)
    SELECT deed_id, deed_item_id, 2, 'Sunnah', 'scale' FROM deed_items WHERE name IN ('Fajr', 'Duha');
INSERT INTO scales (deed_id, name) SELECT deed_id, 'Quality' FROM deeds;
INSERT INTO scale_values (scale_id, value_name, value_order)
    SELECT scale_id, value, place FROM scales, unnest(ARRAY['good', 'fair', '3']) WITH ORDINALITY AS v (value, place)
"""

STORED = text(
    """
    SELECT lower(u.email), i.name, e.entry_date::text, coalesce(e.count_value::text, v.value_name), e.notes
    FROM entries AS e JOIN users AS u USING (user_id) JOIN deed_items AS i USING (deed_item_id)
    LEFT JOIN scale_values AS v USING (scale_value_id)
    ORDER BY 1, 2, 3
    """
)


def settle(connection: Connection) -> None:
    """Add the people, and the partitions of the years in which the tests play."""
    for year in (2025, 2026):
        if connection.scalar(text(f"SELECT to_regclass('entries_{year}')")) is None:
            connection.execute(
                text(f"SELECT jobs.make_partition('entries', '{year}-01-01', '{year + 1}-01-01')")
            )
    connection.execute(text(PEOPLE))


def sheet(content: str | bytes, **options: Any) -> Sheet:
    """Return a file of that content, its header read."""
    return Sheet(io.BytesIO(content.encode() if isinstance(content, str) else content), **options)


def imported(connection: Connection, content: str | bytes, **options: Any) -> Report:
    """Import a file of that content."""
    return run(connection, sheet(content), **({"now": NOW} | options))


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the entries: e-mail, item, date, value, note."""
    return [tuple(row) for row in connection.execute(STORED)]


def history(connection: Connection) -> list[tuple[str, str | None, str | None]]:
    """Return the operation, and the old and the new count, of each change of an entry."""
    query = text(
        """
        SELECT operation::text, old_values ->> 'count_value', new_values ->> 'count_value'
        FROM entry_history ORDER BY entry_history_id
        """
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def reasons(report: Report) -> dict[int, str]:
    """Return why lines were refused, by their numbers."""
    return dict(report.refusals)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    """Return read, added, changed, unchanged, refused."""
    return (report.read, report.added, report.changed, report.unchanged, report.refused)
