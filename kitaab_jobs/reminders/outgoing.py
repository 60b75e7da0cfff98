"""The SQL of sending: deliveries claimed, loaded, and ended.

pending ──▶ sending ──▶ sent | failed | unknown | skipped | missed
   ▲           │
   └───────────┘  surely refused, or not begun

`pending` becomes `sending` in a transaction that is committed before anything is sent. From then on only who has the
claim may end it; where that one is gone, nobody knows what was sent, and it ends as `unknown`.

A notice is locked first, and then its deliveries: so goes the deletion of a person too, and so it goes from merits to
targets. (Within these it has an order of its own: of two who meet at two merits of one person, PostgreSQL may end one.)
And of two that end the last deliveries of a notice at once, the second sees what the first has written, and ends the
notice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Connection, DateTime, String, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import UUID as Uuid
from sqlalchemy.orm import Session

_IDS = bindparam("ids", type_=ARRAY(BigInteger))
_NOTICES = bindparam("notices", type_=ARRAY(BigInteger))
_NOW = bindparam("now", type_=DateTime(timezone=True))

# Why somebody does not get what was recorded for them, though it is in time.
_UNWANTED = """
    CASE WHEN u.deleted_at IS NOT NULL OR NOT u.is_active THEN 'the person has left'
         WHEN EXISTS (SELECT FROM channel_opt_outs AS o WHERE o.user_id = d.user_id AND o.channel = d.channel
                      AND o.kind = CASE WHEN d.notice_id IS NULL THEN 'reminder' ELSE 'completion' END)
              THEN 'the person has unsubscribed from this over ' || d.channel
         WHEN NOT r.is_active THEN 'the reminder was turned off meanwhile'
         WHEN NOT d.channel = ANY (r.channels) THEN 'the channel was turned off meanwhile'
    END
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this job may send, with what is said in it. `unwanted`: why it is not to be sent after all."""

    delivery_id: int
    user_id: int
    channel: str
    attempt: int
    due_at: dt.datetime
    due_date: dt.date
    deadline: dt.datetime
    notification_id: int | None
    notice_id: int | None
    kind: str
    subject_id: int | None
    name: str | None
    language: str
    unwanted: str | None


@dataclass(frozen=True, slots=True)
class End:
    """What a delivery becomes. `pending` is one more try, not before `not_before`."""

    delivery_id: int
    state: str
    reason: str | None = None
    provider_id: str | None = None
    not_before: dt.datetime | None = None
    counts: bool = True


_WAITING = text(
    """
    SELECT channel, count(*) FROM jobs.deliveries
    WHERE delivery_id = ANY (:ids) AND state = 'pending' AND (not_before IS NULL OR not_before <= :now)
    GROUP BY channel ORDER BY channel
    """
).bindparams(_IDS, _NOW)

# SKIP LOCKED: whoever has it, is about to send it.
_CLAIM = text(
    """
    WITH chosen AS (
        SELECT delivery_id FROM jobs.deliveries
        WHERE delivery_id = ANY (:ids) AND channel = :channel AND state = 'pending'
          AND (not_before IS NULL OR not_before <= :now)
        ORDER BY delivery_id LIMIT :number FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.deliveries AS d
    SET state = 'sending', attempt = attempt + 1, started_at = :now, claimed_by = :job, not_before = NULL
    FROM chosen WHERE d.delivery_id = chosen.delivery_id
    RETURNING d.delivery_id
    """
).bindparams(_IDS, _NOW, bindparam("job", type_=Uuid))

_LOAD = text(
    f"""
    SELECT d.delivery_id, d.user_id, d.channel, d.attempt, d.due_at, d.due_date, d.deadline, d.notification_id, d.notice_id,
           coalesce(n.kind, 'reminder'), coalesce(n.merit_id, n.target_id), coalesce(m.name, t.name), u.language,
           {_UNWANTED}
    FROM jobs.deliveries AS d
    JOIN users AS u USING (user_id)
    LEFT JOIN notifications AS r USING (notification_id)
    LEFT JOIN jobs.notices AS n USING (notice_id)
    LEFT JOIN merits AS m ON m.merit_id = n.merit_id
    LEFT JOIN targets AS t ON t.target_id = n.target_id
    WHERE d.delivery_id = ANY (:ids)
    ORDER BY d.delivery_id
    """
).bindparams(_IDS)

# Only by who has the claim: what was ended as unknown meanwhile stays so.
_END = text(
    """
    UPDATE jobs.deliveries AS d
    SET state = e.state::jobs.delivery_state, provider_id = left(e.provider_id, 255),
        reason = CASE WHEN e.state = 'pending' THEN coalesce(e.reason, d.reason) ELSE e.reason END,
        not_before = e.not_before, claimed_by = CASE WHEN e.state <> 'pending' THEN d.claimed_by END,
        attempt = d.attempt - CASE WHEN e.counts THEN 0 ELSE 1 END,
        finished_at = CASE WHEN e.state <> 'pending' THEN CAST(:now AS timestamptz) END
    FROM unnest(:ids, :states, :reasons, :provider_ids, :not_befores, CAST(:counts AS boolean[]))
        AS e (id, state, reason, provider_id, not_before, counts)
    WHERE d.delivery_id = e.id AND d.state = 'sending' AND d.claimed_by = :job
    RETURNING d.delivery_id, d.notice_id
    """
).bindparams(
    _IDS,
    _NOW,
    bindparam("job", type_=Uuid),
    bindparam("states", type_=ARRAY(String)),
    bindparam("reasons", type_=ARRAY(String)),
    bindparam("provider_ids", type_=ARRAY(String)),
    bindparam("not_befores", type_=ARRAY(DateTime(timezone=True))),
)

# A job runs once at a time: what an earlier start of this one has claimed, its worker took along.
_END_OWN = text(
    """
    UPDATE jobs.deliveries SET state = 'unknown', finished_at = :now,
        reason = 'the worker ended while it was being sent'
    WHERE delivery_id = ANY (:ids) AND state = 'sending' AND claimed_by = :job
    RETURNING notice_id
    """
).bindparams(_IDS, _NOW, bindparam("job", type_=Uuid))

# By the instant of the claim: another start of this job may be sending what it has claimed since.
_GIVE_BACK = text(
    """
    UPDATE jobs.deliveries SET state = 'pending', claimed_by = NULL, attempt = attempt - 1
    WHERE delivery_id = ANY (:ids) AND state = 'sending' AND claimed_by = :job AND started_at = :at
    """
).bindparams(_IDS, bindparam("job", type_=Uuid), bindparam("at", type_=DateTime(timezone=True)))

_LATE = text(
    "SELECT delivery_id FROM jobs.deliveries WHERE state = 'pending' AND deadline <= :now ORDER BY delivery_id LIMIT :limit"
).bindparams(_NOW)
# SKIP LOCKED: whoever has it, ends it. So it is with a notice: what is of one that somebody has is left to the next.
_IS_FREE = "(notice_id IS NULL OR notice_id = ANY (:notices))"
_END_LATE = text(
    f"""
    UPDATE jobs.deliveries SET state = 'missed', finished_at = :now,
        reason = 'not sent before its deadline' || coalesce('; the last try: ' || reason, '')
    WHERE delivery_id IN (SELECT delivery_id FROM jobs.deliveries
                          WHERE delivery_id = ANY (:ids) AND {_IS_FREE} AND state = 'pending' AND deadline <= :now
                          FOR UPDATE SKIP LOCKED)
    RETURNING notice_id
    """
).bindparams(_IDS, _NOTICES, _NOW)

# Whose job does not run any more: it ended, or waits for its next start, which would end them itself.
_OF_NOBODY = """
    SELECT d.delivery_id FROM jobs.deliveries AS d
    LEFT JOIN jobs.jobs AS j ON j.id = d.claimed_by AND j.state = 'running'
    WHERE d.state = 'sending' AND j.id IS NULL"""
_ABANDONED = text(f"{_OF_NOBODY} ORDER BY d.delivery_id LIMIT :limit")
_END_ABANDONED = text(
    f"""
    UPDATE jobs.deliveries SET state = 'unknown', finished_at = :now,
        reason = 'the worker ended while it was being sent'
    WHERE delivery_id IN ({_OF_NOBODY} AND d.delivery_id = ANY (:ids) AND {_IS_FREE}
                          FOR UPDATE OF d SKIP LOCKED)
    RETURNING notice_id
    """
).bindparams(_IDS, _NOTICES, _NOW)

_LEFT = text(
    "SELECT channel, not_before FROM jobs.deliveries WHERE delivery_id = ANY (:ids) AND state = 'pending'"
).bindparams(_IDS)

_NOTICES_OF = text(
    "SELECT DISTINCT notice_id FROM jobs.deliveries WHERE delivery_id = ANY (:ids) AND notice_id IS NOT NULL"
).bindparams(_IDS)
_LOCK_NOTICES = text(
    "SELECT notice_id FROM jobs.notices WHERE notice_id = ANY (:ids)"
    " ORDER BY merit_id NULLS LAST, target_id FOR NO KEY UPDATE"
).bindparams(_IDS)
_LOCK_FREE_NOTICES = text(
    "SELECT notice_id FROM jobs.notices WHERE notice_id = ANY (:ids) FOR NO KEY UPDATE SKIP LOCKED"
).bindparams(_IDS)

# A notice has ended when all its deliveries have: sent where one was, else by what comes nearest to that.
_END_NOTICES = text(
    """
    UPDATE jobs.notices AS n SET state = d.state, finished_at = :now, reason = CASE WHEN d.state <> 'sent' THEN d.reason END
    FROM (
        SELECT notice_id,
               (array_agg(state ORDER BY array_position(
                   ARRAY['sent', 'unknown', 'failed', 'missed', 'skipped'], state::text)))[1] AS state,
               string_agg(DISTINCT channel || ': ' || coalesce(reason, state::text), '; ') AS reason
        FROM jobs.deliveries WHERE notice_id = ANY (:ids)
        GROUP BY notice_id HAVING bool_and(state NOT IN ('pending', 'sending'))
    ) AS d
    WHERE n.notice_id = d.notice_id AND n.state = 'sending'
    """
).bindparams(_IDS, _NOW)

# Of which no delivery was ever made: its job ended dead, or somebody cancelled it.
_END_UNTOLD = text(
    """
    UPDATE jobs.notices SET state = 'missed', reason = 'no job made deliveries of it in time', finished_at = :now
    WHERE notice_id IN (SELECT notice_id FROM jobs.notices WHERE state = 'pending' AND created_at <= :before
                        ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING notice_id
    """
).bindparams(_NOW, bindparam("before", type_=DateTime(timezone=True)))

# Over the channels of the person's reminder, or by e-mail where they have none.
_FAN_OUT = text(
    """
    INSERT INTO jobs.deliveries (notice_id, user_id, channel, due_at, due_date, zone, deadline)
    SELECT n.notice_id, n.user_id, c.channel, :now, n.happened_on, u.timezone, :deadline
    FROM jobs.notices AS n JOIN users AS u USING (user_id)
    CROSS JOIN LATERAL (
        SELECT DISTINCT unnest(coalesce(
            (SELECT r.channels FROM notifications AS r WHERE r.user_id = n.user_id
             ORDER BY r.is_active DESC, r.notification_id DESC LIMIT 1), '{email}'))
    ) AS c (channel)
    WHERE n.notice_id = ANY (:ids) AND n.state = 'pending' AND u.is_active AND u.deleted_at IS NULL
    ORDER BY n.notice_id, c.channel
    ON CONFLICT DO NOTHING
    RETURNING zone, delivery_id
    """
).bindparams(_IDS, _NOW, bindparam("deadline", type_=DateTime(timezone=True)))

_FANNED_OUT = text(
    """
    UPDATE jobs.notices AS n
    SET state = CASE WHEN made.any THEN 'sending' ELSE 'missed' END::jobs.delivery_state,
        reason = CASE WHEN NOT made.any THEN 'the person has left' END,
        finished_at = CASE WHEN NOT made.any THEN CAST(:now AS timestamptz) END
    FROM (
        SELECT w.notice_id, EXISTS (SELECT FROM jobs.deliveries AS d WHERE d.notice_id = w.notice_id) AS any
        FROM jobs.notices AS w WHERE w.notice_id = ANY (:ids)
    ) AS made
    WHERE n.notice_id = made.notice_id AND n.state = 'pending'
    """
).bindparams(_IDS, _NOW)


def waiting(connection: Connection, ids: Sequence[int], now: dt.datetime) -> dict[str, int]:
    """Return how many of these may be sent now, by channel."""
    return {row[0]: row[1] for row in connection.execute(_WAITING, {"ids": list(ids), "now": now})}


def claim(
    connection: Connection, ids: Sequence[int], channel: str, job: UUID, number: int, now: dt.datetime
) -> list[Claimed]:
    """Claim up to `number` of these for a job. They are to be sent after the commit, and then ended."""
    values = {"ids": list(ids), "channel": channel, "job": job, "number": number, "now": now}
    claimed = list(connection.scalars(_CLAIM, values))
    return [Claimed(*row) for row in connection.execute(_LOAD, {"ids": claimed})] if claimed else []


def addresses(
    connection: Connection, statement: TextClause, users: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Return where these people can be reached, by a channel's own statement."""
    return {row[0]: row[1] for row in connection.execute(statement, {"users": list(users)})}


def end(connection: Connection, job: UUID, ends: Sequence[End], now: dt.datetime) -> set[int]:
    """Record what became of claimed deliveries, and return those that still were this job's."""
    values = {
        "ids": [e.delivery_id for e in ends],
        "states": [e.state for e in ends],
        "reasons": [e.reason for e in ends],
        "provider_ids": [e.provider_id for e in ends],
        "not_befores": [e.not_before for e in ends],
        "counts": [e.counts for e in ends],
        "job": job,
        "now": now,
    }
    _lock_notices_of(connection, [e.delivery_id for e in ends])
    rows = connection.execute(_END, values).all()
    _end_notices(connection, [row.notice_id for row in rows], now)
    return {row.delivery_id for row in rows}


def end_own(connection: Connection, ids: Sequence[int], job: UUID, now: dt.datetime) -> int:
    """End as unknown what an earlier start of this job was sending. Return how many."""
    _lock_notices_of(connection, ids)
    ended = list(connection.scalars(_END_OWN, {"ids": list(ids), "job": job, "now": now}))
    _end_notices(connection, ended, now)
    return len(ended)


def give_back(connection: Connection, ids: Sequence[int], job: UUID, at: dt.datetime) -> None:
    """Undo the claim that this job made of some of these at that instant; nothing of it may have begun."""
    connection.execute(_GIVE_BACK, {"ids": list(ids), "job": job, "at": at})


def end_late(connection: Connection, ids: Sequence[int], now: dt.datetime) -> int:
    """End as missed those whose deadline is over. Return how many."""
    return sum(_end_left_behind(connection, ids, [], now))


def sweep(connection: Connection | Session, limit: int, now: dt.datetime) -> tuple[int, int]:
    """End as missed what nobody has sent before its deadline, and as unknown what nobody is sending any more.

    Up to `limit` of each; return how many of each.
    """
    late = list(connection.scalars(_LATE, {"limit": limit, "now": now}))
    abandoned = list(connection.scalars(_ABANDONED, {"limit": limit}))
    return _end_left_behind(connection, late, abandoned, now)


def sweep_untold(session: Session, limit: int, before: dt.datetime, now: dt.datetime) -> int:
    """End as missed the notices made before that instant of which no delivery was made. Return how many, up to `limit`."""
    return len(list(session.scalars(_END_UNTOLD, {"limit": limit, "before": before, "now": now})))


def left(session: Session, ids: Sequence[int]) -> list[tuple[str, dt.datetime | None]]:
    """Return the channel, and the instant of the next try, of those that are still to be sent."""
    return [(row[0], row[1]) for row in session.execute(_LEFT, {"ids": list(ids)})]


def fan_out(
    session: Session, notice_ids: Sequence[int], now: dt.datetime, deadline: dt.datetime
) -> list[tuple[str, int]]:
    """Make deliveries of the pending ones of these notices, and return their zones and ids."""
    values = {"ids": list(notice_ids), "now": now, "deadline": deadline}
    session.execute(_LOCK_NOTICES, {"ids": list(notice_ids)})
    made = [(row[0], row[1]) for row in session.execute(_FAN_OUT, values)]
    session.execute(_FANNED_OUT, {"ids": list(notice_ids), "now": now})
    return made


def _end_left_behind(
    connection: Connection | Session, late: Sequence[int], abandoned: Sequence[int], now: dt.datetime
) -> tuple[int, int]:
    """Nobody waits for the result: what is of a notice that somebody has just now is left."""
    notices = _notices_of(connection, [*late, *abandoned])
    free = list(connection.scalars(_LOCK_FREE_NOTICES, {"ids": notices})) if notices else []
    given = {"notices": free, "now": now}
    missed = list(connection.scalars(_END_LATE, {**given, "ids": list(late)}))
    unknown = list(connection.scalars(_END_ABANDONED, {**given, "ids": list(abandoned)})) if abandoned else []
    _end_notices(connection, [*missed, *unknown], now)
    return len(missed), len(unknown)


def _notices_of(connection: Connection | Session, deliveries: Sequence[int]) -> list[int]:
    return list(connection.scalars(_NOTICES_OF, {"ids": list(deliveries)}))


def _lock_notices_of(connection: Connection | Session, deliveries: Sequence[int]) -> None:
    if notices := _notices_of(connection, deliveries):
        connection.execute(_LOCK_NOTICES, {"ids": notices})


def _end_notices(connection: Connection | Session, notices: Sequence[int | None], now: dt.datetime) -> None:
    ids = [id for id in notices if id is not None]
    if ids:
        connection.execute(_END_NOTICES, {"ids": ids, "now": now})
