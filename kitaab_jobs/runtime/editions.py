"""Which timetable counts where beats bring several, as in the midst of a deploy.

Of those that beats at work bring along it is the one that was read for the first time last. So a beat of the version
before that is started once more, or was never stopped, does not take a deploy back; and whoever goes back to the
version before gets it as soon as no beat of the later one is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from sqlalchemy import Connection, text

from kitaab_jobs.db import locks
from kitaab_jobs.runtime import roster
from kitaab_jobs.runtime.liveness import BEAT_SILENT_SECONDS
from kitaab_jobs.runtime.timetable import Schedule

# One decides at a time; and from here on until the timetable is written.
_TURN = text("SELECT pg_advisory_xact_lock(:key)")

# By the time of the statement: the transaction of who comes second began before the first one's ended.
_READ = text(
    "INSERT INTO jobs.timetables (edition, first_read_at) VALUES (:edition, clock_timestamp()) ON CONFLICT DO NOTHING"
)
_BRING = text(
    """
    INSERT INTO jobs.processes (name, kind, version, timetable) VALUES (:beat, 'beat', :version, :edition)
    ON CONFLICT (name) DO UPDATE SET timetable = excluded.timetable
    """
)
_LATEST = text(
    """
    SELECT t.edition, p.name FROM jobs.processes AS p JOIN jobs.timetables AS t ON t.edition = p.timetable
    WHERE p.kind = 'beat' AND (p.name = :beat OR p.seen_at > clock_timestamp() - :silent * interval '1 second')
    ORDER BY t.first_read_at DESC, t.edition, p.name LIMIT 1
    """
)
_LEAVE = text("UPDATE jobs.processes SET timetable = NULL WHERE name = :beat")


def edition_of(lines: Iterable[Schedule]) -> str:
    """Return what tells these lines from others, whatever their order."""
    said = {line.name: roster.written(line, "file") for line in lines}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def bring(connection: Connection, beat: str, version: str, edition: str) -> str | None:
    """Say that this beat brings this timetable along. Return None where that is the one that counts, and nobody else
    decides until the transaction ends; else the name of a beat with a later one."""
    connection.execute(_TURN, {"key": locks.SYNC_TIMETABLE})
    connection.execute(_READ, {"edition": edition})
    connection.execute(_BRING, {"beat": beat, "version": version, "edition": edition})
    latest, owner = connection.execute(_LATEST, {"beat": beat, "silent": BEAT_SILENT_SECONDS}).one()
    return None if latest == edition else str(owner)


def leave(connection: Connection, beat: str) -> None:
    """Say that this beat ends, so that nobody waits for it to be silent."""
    connection.execute(_LEAVE, {"beat": beat})
