"""Made-up diaries for `benchmarks.progress`: people, items, entries and goals, all made by SQL in the server.

Entries lie in the table as they come in real life: by day, the people of one day together, so that the entries of
one item are far apart. Triggers are off while they are loaded, and indexes are made afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

ITEMS = 5  # of each person; the first is above the second, and the last is measured on a scale
SPACING = 10  # an item is recorded on one day in so many
COUNT, SCALE = ITEMS - 1, 1

_PEOPLE = """
    INSERT INTO users (user_id, email, password_hash, full_name, timezone)
    SELECT p, 'p' || p || '@example.org', '', 'P', (ARRAY['UTC', 'America/New_York', 'Asia/Kolkata'])[1 + p %% 3]
    FROM generate_series(1, %(people)s) AS p;
    INSERT INTO deeds (deed_id, user_id, category_type, name)
    SELECT p, p, 'hasanaat', 'deed' FROM generate_series(1, %(people)s) AS p;
    INSERT INTO scales (scale_id, deed_id, name) SELECT p, p, 'scale' FROM generate_series(1, %(people)s) AS p;
    INSERT INTO scale_values (scale_value_id, scale_id, value_name)
    SELECT p * 4 + v, p, 'v' || v FROM generate_series(1, %(people)s) AS p, generate_series(0, 3) AS v;
    INSERT INTO deed_items (deed_item_id, deed_id, parent_deed_item_id, level, name, value_type)
    SELECT p * 5 + i, p, CASE i WHEN 1 THEN p * 5 END, CASE i WHEN 1 THEN 2 ELSE 1 END, 'item ' || i,
           CASE i WHEN 4 THEN 'scale' ELSE 'count' END::value_type_enum
    FROM generate_series(1, %(people)s) AS p, generate_series(0, 4) AS i
"""

# The n-th entry of an item, counted back from today. `hashint8` is as good as random, and the same each time.
_ENTRIES = """
    INSERT INTO entries (user_id, deed_item_id, entry_date, scale_id, scale_value_id, count_value)
    SELECT p, p * 5 + i, %(today)s - (n * {spacing} + (h >> 8) %% {spacing}),
           CASE i WHEN 4 THEN p END, CASE i WHEN 4 THEN p * 4 + h %% 4 END,
           CASE WHEN i < 4 THEN 1 + h %% 1000 / 100.0 END
    FROM generate_series(%(entries)s - 1, 0, -1) AS n, generate_series(1, %(people)s) AS p,
         generate_series(0, 4) AS i, LATERAL (SELECT hashint8(p::bigint * 1000003 + i * 1009 + n) & 1048575) AS hash (h)
    ORDER BY 3, 1, 2
"""

# Two items each. Ever and in a target about half are reached; in a sliding window of 7, 30 or 90 days, with an
# entry in ten days, about a third.
_GOALS = """
    INSERT INTO merits (merit_id, user_id, deed_id, name, merit_type, start_date, duration_days)
    SELECT p * 3 + m, p, p, 'merit', CASE p %% 4 WHEN 0 THEN 'OR' ELSE 'AND' END::goal_logic_enum,
           CAST(%(today)s AS date) - 2000, CASE WHEN m > 0 THEN (ARRAY[7, 30, 90])[1 + (p + m) %% 3] END
    FROM generate_series(1, %(people)s) AS p, generate_series(0, 2) AS m;
    INSERT INTO merit_items (merit_id, deed_id, deed_item_id, item_type, scale_value_id, target_value)
    SELECT merit_id, p, p * 5 + i, CASE i WHEN 4 THEN 'scale' ELSE 'count' END::value_type_enum,
           CASE i WHEN 4 THEN p * 4 END,
           CASE WHEN i < 4 THEN 1 ELSE 0.045 END
               * CASE WHEN days IS NULL THEN %(entries)s * (2 + h %% 8) ELSE 5.5 + days * (8 + h %% 16) / 20.0 END
    FROM (SELECT merit_id, user_id AS p, duration_days AS days, merit_id %% 3 AS m FROM merits) AS merit,
         generate_series(0, 4) AS i, LATERAL (SELECT hashint8(merit_id * 31 + i) & 1048575) AS hash (h)
    WHERE i IN (m, m + 2);
    INSERT INTO targets (target_id, user_id, name, start_date, end_date)
    SELECT p, p, 'target', CAST(%(today)s AS date) - 200 - p %% 100, CAST(%(today)s AS date) + p %% 50
    FROM generate_series(1, %(people)s) AS p;
    INSERT INTO target_items (target_id, deed_item_id, item_type, scale_value_id, target_value)
    SELECT p, p * 5 + i, CASE i WHEN 4 THEN 'scale' ELSE 'count' END::value_type_enum,
           CASE i WHEN 4 THEN p * 4 END,
           CASE WHEN i < 4 THEN 1 ELSE 0.045 END * least(20, %(entries)s) * (2 + p %% 8)
    FROM generate_series(1, %(people)s) AS p, generate_series(3, 4) AS i
"""

_INDEXES = """
    SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = 'entries'::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)
"""
_KEYS = """
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = 'entries'::regclass AND contype IN ('p', 'u')
"""


def make(
    connection: psycopg.Connection, today: object, people: int, entries: int, say: Callable[[str], None]
) -> None:
    """Make `people` people with five items each, and `entries` entries of each item, as a superuser.

    `today` is the date of the newest entries. Everything is analysed and vacuumed, as a database in use is.
    """
    values = {"people": people, "entries": entries, "today": today}
    run = connection.execute
    run("SET session_replication_role = replica")  # neither triggers nor foreign keys
    run("SET maintenance_work_mem = '1GB'")
    run("SET work_mem = '2GB'")  # for the sort by day
    first = run("SELECT extract(year FROM %(today)s - %(entries)s * 10)::integer", values).fetchone()
    assert first
    run(
        "SELECT jobs.make_partition('entries', make_date(y, 1, 1), make_date(y + 1, 1, 1))"
        " FROM generate_series(%s::integer, extract(year FROM %s::date)::integer + 1) AS y"
        " WHERE to_regclass('entries_' || y) IS NULL",
        [first[0], today],
    )
    for statement in _PEOPLE.split(";"):
        run(statement.encode(), values)
    indexes, keys = run(_INDEXES.encode()).fetchall(), run(_KEYS.encode()).fetchall()
    for name, _ in indexes:
        run(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    for name, _ in keys:
        run(sql.SQL("ALTER TABLE entries DROP CONSTRAINT {}").format(sql.Identifier(name)))
    say(f"loading {people * ITEMS * entries:,} entries")
    run(_ENTRIES.format(spacing=SPACING).encode(), values)
    say("indexes")
    for name, definition in keys:
        run(
            sql.SQL("ALTER TABLE entries ADD CONSTRAINT {} ").format(sql.Identifier(name))
            + sql.SQL(definition)
        )
    for _, definition in indexes:
        run(definition.encode())
    say("goals")
    for statement in _GOALS.split(";"):
        run(statement.encode(), values)
    run("RESET session_replication_role")
    for table in ("entries", "users", "deed_items", "merits", "merit_items", "targets", "target_items"):
        run(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))
