"""Find merits that one small entry completes, to show it."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from kitaab_jobs.timing import is_zone, local_date


class NearlyThere(NamedTuple):
    """A merit and the entry that completes it: on `day`, the person's date, on which the item has none yet.

    For a count the entry's `count_value` is `missing`. For a scale `scale_value_id` is to be recorded
    and `missing` is 1; for a count it is None.
    """

    user_id: int
    full_name: str
    merit_id: int
    merit: str
    deed_item_id: int
    item: str
    scale_value_id: int | None
    missing: Decimal
    day: date


# A merit of N days is taken only in its first N days, when there is a single window: what is missing
# in it is then missing, whatever happened before. One without a duration counts every entry. Parts are
# measured as the platform measures them: counts are added, scale values counted, over the item and
# those below it, each entry once.
_QUERY = text("""
    WITH RECURSIVE days AS (
        SELECT * FROM unnest(CAST(:zones AS text[]), CAST(:days AS date[])) AS d (zone, day)
    ),
    open_merits AS (
        SELECT m.merit_id, m.name, m.merit_type, u.user_id, u.full_name, days.day,
               CASE WHEN m.duration_days IS NULL THEN '-infinity' ELSE m.start_date END AS since
        FROM merits AS m
        JOIN users AS u ON u.user_id = m.user_id AND u.is_active AND u.deleted_at IS NULL
        JOIN deeds AS d ON d.deed_id = m.deed_id AND d.deleted_at IS NULL
        JOIN days ON days.zone = u.timezone
        WHERE m.is_active AND m.completed_at IS NULL AND m.deleted_at IS NULL
          AND m.start_date <= days.day
          AND (m.duration_days IS NULL OR m.start_date + m.duration_days > days.day)
    ),
    lines AS (
        SELECT DISTINCT i.deed_item_id AS root, i.deed_item_id
        FROM open_merits JOIN merit_items AS i USING (merit_id)
        UNION ALL
        SELECT lines.root, i.deed_item_id
        FROM lines JOIN deed_items AS i ON i.parent_deed_item_id = lines.deed_item_id
    ),
    parts AS (
        SELECT m.merit_id, i.merit_item_id, i.deed_item_id, i.scale_value_id, i.target_value - done.amount AS missing,
               i.target_value
        FROM open_merits AS m JOIN merit_items AS i USING (merit_id)
        CROSS JOIN LATERAL (
            SELECT CASE i.item_type WHEN 'count' THEN coalesce(sum(e.count_value), 0)
                   ELSE count(*) FILTER (WHERE e.scale_value_id = i.scale_value_id) END AS amount
            FROM lines JOIN entries AS e ON e.deed_item_id = lines.deed_item_id
            WHERE lines.root = i.deed_item_id AND e.user_id = m.user_id
              AND e.entry_date BETWEEN m.since AND m.day
        ) AS done
    ),
    open_parts AS (
        SELECT parts.*, count(*) FILTER (WHERE missing > 0) OVER whole AS lacking, count(*) OVER whole AS all_parts
        FROM parts WINDOW whole AS (PARTITION BY merit_id)
    )
    SELECT m.user_id, m.full_name, m.merit_id, m.name, p.deed_item_id, i.name, p.scale_value_id,
           p.missing, m.day
    FROM open_parts AS p
    JOIN open_merits AS m USING (merit_id)
    JOIN deed_items AS i ON i.deed_item_id = p.deed_item_id AND i.deleted_at IS NULL
    WHERE p.missing > 0
      AND CASE m.merit_type WHEN 'AND' THEN p.lacking = 1 ELSE p.lacking = p.all_parts END
      AND CASE WHEN p.scale_value_id IS NULL THEN p.missing <= p.target_value / 4 ELSE p.missing = 1 END
      AND NOT EXISTS (
          SELECT FROM entries AS e
          WHERE e.user_id = m.user_id AND e.deed_item_id = p.deed_item_id AND e.entry_date = m.day)
    ORDER BY p.missing / p.target_value, m.merit_id, p.merit_item_id
""")


def nearly_there(connection: Connection, limit: int, *, now: datetime) -> list[NearlyThere]:
    """Return up to `limit` merits that lack one entry at `now` (aware), the closest first.

    Each merit is there once. They need not come from the sample, and none of them is complete already,
    even if the platform has yet to compute its progress.
    """
    zones = [zone for (zone,) in connection.execute(text("SELECT DISTINCT timezone FROM users ORDER BY 1"))]
    known = [zone for zone in zones if is_zone(zone)]
    days = [local_date(now, zone) for zone in known]
    found: dict[int, NearlyThere] = {}
    for row in connection.execute(_QUERY, {"zones": known, "days": days}):
        merit = NearlyThere(*row)
        found.setdefault(merit.merit_id, merit)
        if len(found) == limit:
            break
    return list(found.values())
