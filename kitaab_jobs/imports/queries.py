"""All SQL of the imports: what lines name is read in batches, and what they say is written in batches.

Lines are staged in a temporary table by COPY. Temporary tables vanish with the transaction, and their
names (`import_lines`, `import_entries`) belong to this feature.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import psycopg
from sqlalchemy import ARRAY, BigInteger, Connection, Row, String, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError


def _with_array(sql: str, name: str, kind: type[BigInteger] | type[String]) -> TextClause:
    return text(sql).bindparams(bindparam(name, type_=ARRAY(kind)))


# --- what lines name -----------------------------------------------------------------------------

# Through the unique index on lower(email) of those who are not deleted: one probe for each e-mail.
_PEOPLE = _with_array(
    """
    SELECT asked.email AS asked, u.user_id, u.email, u.timezone
    FROM unnest(:emails) AS asked (email)
    JOIN users AS u ON lower(u.email) = lower(asked.email) AND u.deleted_at IS NULL
    """,
    "emails",
    String,
)

# Only for e-mails that nobody has: were they somebody's who was deleted? One pass, as no index holds these.
_DELETED_PEOPLE = _with_array(
    """
    SELECT DISTINCT asked.email
    FROM unnest(:emails) AS asked (email)
    JOIN users AS u ON lower(u.email) = lower(asked.email) AND u.deleted_at IS NOT NULL
    """,
    "emails",
    String,
)

# Only for the first few e-mails that nobody has: those that begin alike, for a hint at a typing error.
_SIMILAR_PEOPLE = _with_array(
    """
    SELECT u.email
    FROM users AS u
    WHERE left(lower(u.email), 3) IN (SELECT left(lower(email), 3) FROM unnest(:emails) AS asked (email))
      AND u.deleted_at IS NULL
    ORDER BY u.email
    LIMIT 2000
    """,
    "emails",
    String,
)

# Deleted deeds and items too, so that a line can be told that its item was deleted, not that it never was.
# An item below a deleted one is as good as deleted. A deed without items has one row, without an item.
_ITEMS = _with_array(
    """
    WITH RECURSIVE deed AS (
        SELECT deed_id, user_id, name, deleted_at IS NOT NULL AS deleted FROM deeds WHERE user_id = ANY (:users)
    ),
    item AS (
        SELECT i.deed_item_id, i.deed_id, i.value_type, i.deleted_at IS NOT NULL AS deleted,
               ARRAY[i.name::text] AS path
        FROM deed_items AS i JOIN deed USING (deed_id)
        WHERE i.parent_deed_item_id IS NULL
        UNION ALL
        SELECT i.deed_item_id, i.deed_id, i.value_type, above.deleted OR i.deleted_at IS NOT NULL,
               above.path || i.name::text
        FROM deed_items AS i JOIN item AS above ON i.parent_deed_item_id = above.deed_item_id
    )
    SELECT deed.user_id, deed.deed_id, deed.name, deed.deleted,
           item.deed_item_id, item.value_type = 'count' AS counted, item.deleted AS item_deleted, item.path
    FROM deed LEFT JOIN item USING (deed_id)
    ORDER BY deed.deed_id, item.path
    """,
    "users",
    BigInteger,
)

# Every version of every scale: which one a value means is the catalogue's to say.
_VALUES = _with_array(
    """
    SELECT d.user_id, s.deed_id, s.scale_id, s.name AS scale, s.version, s.is_active AND v.is_active AS in_use,
           s.deleted_at IS NOT NULL AS deleted, v.scale_value_id, v.value_name
    FROM scales AS s JOIN scale_values AS v USING (scale_id) JOIN deeds AS d USING (deed_id)
    WHERE d.user_id = ANY (:users)
    ORDER BY s.deed_id, s.scale_id, v.value_order, v.scale_value_id
    """,
    "users",
    BigInteger,
)

# From the catalog, since partitions are made and detached while others write. A pending detach takes no rows.
_BOUNDS = r"""
    SELECT coalesce(substring(bound FROM $$FROM \('([0-9-]+)'\)$$)::date, '0001-01-01') AS low,
           coalesce(substring(bound FROM $$TO \('([0-9-]+)'\)$$)::date, '9999-12-31') AS high
    FROM (
        SELECT pg_get_expr(c.relpartbound, c.oid) AS bound
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.entries'::regclass AND NOT i.inhdetachpending
    ) AS partition
"""
_PARTITIONS = text(_BOUNDS + " ORDER BY low")


def people(connection: Connection, emails: Collection[str]) -> Sequence[Row[Any]]:
    """Return asked, user_id, email, timezone of the people who have these e-mails."""
    return connection.execute(_PEOPLE, {"emails": list(emails)}).all()


def deleted_people(connection: Connection, emails: Collection[str]) -> set[str]:
    """Return those of these e-mails that only deleted people have."""
    return set(connection.scalars(_DELETED_PEOPLE, {"emails": list(emails)}))


def similar_people(connection: Connection, emails: Collection[str]) -> Sequence[str]:
    """Return e-mails of people that begin as one of these."""
    return connection.scalars(_SIMILAR_PEOPLE, {"emails": list(emails)}).all()


def items(connection: Connection, users: Collection[int]) -> Iterable[Row[Any]]:
    """Return the deeds of these people with the paths of their items."""
    return connection.execute(_ITEMS, {"users": list(users)})


def values(connection: Connection, users: Collection[int]) -> Iterable[Row[Any]]:
    """Return the values of the scales of these people's deeds."""
    return connection.execute(_VALUES, {"users": list(users)})


def partitions(connection: Connection) -> list[tuple[dt.date, dt.date]]:
    """Return the first day of each partition of entries, and the first day after it."""
    return [(row.low, row.high) for row in connection.execute(_PARTITIONS)]


# --- staging -------------------------------------------------------------------------------------

# How long these statements take depends on the size of the file, which the operator knows; waiting for
# locks stays bounded by lock_timeout.
_NO_TIME_LIMIT = text("SET LOCAL statement_timeout = 0")

# Those of an import before this one in the same transaction.
_DROP_STAGING = text("DROP TABLE IF EXISTS pg_temp.import_lines, pg_temp.import_entries")

_MAKE_LINES = text(
    """
    CREATE TEMPORARY TABLE import_lines (
        line integer NOT NULL,
        user_id bigint NOT NULL,
        deed_item_id bigint NOT NULL,
        entry_date date NOT NULL,
        count_value numeric(10, 2),
        scale_id bigint,
        scale_value_id bigint,
        notes text
    ) ON COMMIT DROP
    """
)

_COPY_LINES = (
    "COPY import_lines (line, user_id, deed_item_id, entry_date, count_value, scale_id, scale_value_id, notes) "
    "FROM STDIN"
)

# One row an entry, from the first line that gives it, compared with what is stored: one pass over both, and
# what is the same is never touched again: no lock, no new version of the row, no history.
# - An empty note leaves the stored one.
# - `kept`: the same value in another version of the scale is the same value, or a new version of a scale
#   would turn its old entries into changes.
# - `position` follows the unique key: batches are written in it, so that two writers lock rows in one
#   order, and the lines of one item come together.
_MAKE_ENTRIES = text(
    """
    CREATE TEMPORARY TABLE import_entries ON COMMIT DROP AS
    SELECT *, row_number() OVER (PARTITION BY fate ORDER BY user_id, deed_item_id, entry_date) AS position
    FROM (
        SELECT i.*, kept.scale_id AS kept_scale_id, kept.scale_value_id AS kept_scale_value_id,
               CASE WHEN e.entry_id IS NULL THEN 'added'
                    WHEN (e.count_value, e.scale_value_id, e.notes) IS DISTINCT FROM (
                        i.count_value, coalesce(kept.scale_value_id, i.scale_value_id), coalesce(i.notes, e.notes)
                    ) THEN 'changed'
                    ELSE 'same' END AS fate
        FROM (
            SELECT DISTINCT ON (user_id, deed_item_id, entry_date) * FROM import_lines
            ORDER BY user_id, deed_item_id, entry_date, line
        ) AS i
        LEFT JOIN entries AS e
            ON (e.user_id, e.deed_item_id, e.entry_date) = (i.user_id, i.deed_item_id, i.entry_date)
        LEFT JOIN LATERAL (
            SELECT stored.scale_id, stored.scale_value_id
            FROM scale_values AS stored JOIN scales AS stored_scale ON stored_scale.scale_id = stored.scale_id,
                 scale_values AS given JOIN scales AS given_scale ON given_scale.scale_id = given.scale_id
            WHERE stored.scale_value_id = e.scale_value_id AND given.scale_value_id = i.scale_value_id
              AND stored.scale_value_id <> given.scale_value_id
              AND (stored.value_name, stored_scale.name, stored_scale.deed_id)
                  = (given.value_name, given_scale.name, given_scale.deed_id)
        ) AS kept ON true
    ) AS compared
    """
)
_INDEX_ENTRIES = text("CREATE UNIQUE INDEX import_entries_position ON import_entries (fate, position)")
# Nothing analyzes a temporary table by itself, and without statistics its joins go wrong.
_ANALYZE_LINES = text("ANALYZE import_lines")
_ANALYZE_ENTRIES = text("ANALYZE import_entries")

# A later line that says the same is harmless; one that says something else is a contradiction, also where
# its person or item is gone by now: hence the outer joins.
_CONFLICT = """
    l.line <> i.line
    AND (l.user_id, l.deed_item_id, l.entry_date) = (i.user_id, i.deed_item_id, i.entry_date)
    AND (l.count_value, l.scale_value_id, l.notes) IS DISTINCT FROM (i.count_value, i.scale_value_id, i.notes)
"""
_CONFLICTS = text(
    f"""
    SELECT l.line, i.line AS first_line, coalesce(u.email, '?') AS email, coalesce(t.name, '?') AS item, l.entry_date,
           coalesce(l.count_value::text, lv.value_name) AS value,
           coalesce(i.count_value::text, iv.value_name) AS first_value
    FROM import_lines AS l
    JOIN import_entries AS i ON {_CONFLICT}
    LEFT JOIN users AS u ON u.user_id = l.user_id
    LEFT JOIN deed_items AS t ON t.deed_item_id = l.deed_item_id
    LEFT JOIN scale_values AS lv ON lv.scale_value_id = l.scale_value_id
    LEFT JOIN scale_values AS iv ON iv.scale_value_id = i.scale_value_id
    ORDER BY l.line
    """
)
# Refused lines leave, so that what is left can be counted.
_DROP_CONFLICTS = text(f"DELETE FROM import_lines AS l USING import_entries AS i WHERE {_CONFLICT}")

_COUNT_LINES = text("SELECT count(*) FROM import_lines")
_COUNT_FATES = text(
    "SELECT fate, count(*) AS number, max(position) AS last FROM import_entries GROUP BY fate"
)


def make_staging(connection: Connection) -> None:
    """Make the table that lines are staged in."""
    for statement in (_NO_TIME_LIMIT, _DROP_STAGING, _MAKE_LINES):
        connection.execute(statement)


def stage(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """Add lines to the staging table: one COPY for a batch."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor, cursor.copy(_COPY_LINES) as copy:
        for row in rows:
            copy.write_row(row)


def make_entries(connection: Connection) -> None:
    """Make the table of the entries that the staged lines give, and what is to become of each."""
    for statement in (_ANALYZE_LINES, _MAKE_ENTRIES, _INDEX_ENTRIES, _ANALYZE_ENTRIES):
        connection.execute(statement)


def conflicts(connection: Connection) -> Iterator[Row[Any]]:
    """Yield the lines that contradict an earlier one, in order, without holding all of them."""
    with connection.execute(_CONFLICTS, execution_options={"stream_results": True}) as result:
        yield from result


def drop_conflicts(connection: Connection) -> None:
    """Take the lines that contradict an earlier one out of the staged ones."""
    connection.execute(_DROP_CONFLICTS)


def count_lines(connection: Connection) -> int:
    """Return how many lines are staged."""
    return int(connection.scalar(_COUNT_LINES) or 0)


def count_fates(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return for "added", "changed" and "same" how many entries there are, and their last position."""
    found = {row.fate: (int(row.number), int(row.last)) for row in connection.execute(_COUNT_FATES)}
    return {fate: found.get(fate, (0, 0)) for fate in ("added", "changed", "same")}


# --- writing -------------------------------------------------------------------------------------

# Nobody can delete these people, items and values for good until the import is through; people before
# items before values, and by id, is the order in which a deletion cascades and others lock.
_LOCKS = tuple(
    text(
        f"""
        SELECT count(*) FROM (
            SELECT FROM {table} WHERE {key} IN (SELECT {key} FROM import_entries) ORDER BY {key} FOR KEY SHARE
        ) AS locked
        """
    )
    for table, key in (
        ("users", "user_id"),
        ("deed_items", "deed_item_id"),
        ("scale_values", "scale_value_id"),
    )
)

# What was looked up when its line was read may be gone by now, or its partition may. Each item, value and
# date is looked at once, however many entries have it.
_DROP_GONE = text(
    f"""
    WITH bounds AS MATERIALIZED ({_BOUNDS}),
    lost_item AS (
        SELECT named.user_id, named.deed_item_id
        FROM (SELECT DISTINCT user_id, deed_item_id, count_value IS NOT NULL AS counted FROM import_entries) AS named
        WHERE NOT EXISTS (
            SELECT FROM users AS u JOIN deeds AS d USING (user_id) JOIN deed_items AS t USING (deed_id)
            WHERE u.user_id = named.user_id AND t.deed_item_id = named.deed_item_id
              AND u.deleted_at IS NULL AND d.deleted_at IS NULL AND t.deleted_at IS NULL
              AND (t.value_type = 'count') = named.counted)
    ),
    lost_value AS (
        SELECT named.scale_value_id FROM (SELECT DISTINCT scale_value_id FROM import_entries) AS named
        WHERE NOT EXISTS (SELECT FROM scale_values AS v WHERE v.scale_value_id = named.scale_value_id)
    ),
    lost_day AS (
        SELECT named.entry_date FROM (SELECT DISTINCT entry_date FROM import_entries) AS named
        WHERE NOT EXISTS (SELECT FROM bounds WHERE named.entry_date >= low AND named.entry_date < high)
    ),
    gone AS (
        DELETE FROM import_entries
        WHERE (user_id, deed_item_id) IN (SELECT user_id, deed_item_id FROM lost_item)
           OR scale_value_id IN (SELECT scale_value_id FROM lost_value WHERE scale_value_id IS NOT NULL)
           OR entry_date IN (SELECT entry_date FROM lost_day)
        RETURNING user_id, deed_item_id, entry_date
    )
    SELECT l.line, l.entry_date, l.entry_date NOT IN (SELECT entry_date FROM lost_day) AS has_partition
    FROM import_lines AS l JOIN gone USING (user_id, deed_item_id, entry_date)
    ORDER BY l.line
    """
)

# By the conflict, a row that somebody else has added meanwhile is written over, as it would have been a
# moment later, and one that somebody else has deleted is added.
_WRITE = text(
    """
    INSERT INTO entries AS e (entry_date, user_id, deed_item_id, count_value, scale_id, scale_value_id, notes)
    SELECT i.entry_date, i.user_id, i.deed_item_id, i.count_value, coalesce(i.kept_scale_id, i.scale_id),
           coalesce(i.kept_scale_value_id, i.scale_value_id), i.notes
    FROM import_entries AS i
    WHERE i.fate = :fate AND i.position > :after AND i.position <= :upto
    ORDER BY i.position
    ON CONFLICT (user_id, deed_item_id, entry_date) DO UPDATE
    SET count_value = excluded.count_value, scale_id = excluded.scale_id,
        scale_value_id = excluded.scale_value_id, notes = coalesce(excluded.notes, e.notes)
    WHERE (e.count_value, e.scale_value_id, e.notes)
        IS DISTINCT FROM (excluded.count_value, excluded.scale_value_id, coalesce(excluded.notes, e.notes))
    """
)


def partition_was_lost(error: BaseException) -> bool:
    """Tell whether a row had no partition of entries any more: it was detached since it was looked up."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg.errors.CheckViolation) and (
        cause.diag.table_name == "entries" and cause.diag.constraint_name is None
    )


def lock_named(connection: Connection) -> None:
    """Keep the people, items and values that the entries name from being deleted for good."""
    for statement in _LOCKS:
        connection.execute(statement)


def drop_gone(connection: Connection) -> Sequence[Row[Any]]:
    """Take out the entries whose item, value or partition has gone; return line, entry_date, has_partition."""
    return connection.execute(_DROP_GONE).all()


def write(connection: Connection, fate: str, after: int, upto: int) -> int:
    """Write the entries of this fate in these positions; return how many are new or different."""
    return connection.execute(_WRITE, {"fate": fate, "after": after, "upto": upto}).rowcount
