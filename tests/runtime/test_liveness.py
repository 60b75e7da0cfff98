"""No beat is at work: somebody says so."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from kitaab_jobs.runtime.liveness import BEAT_SILENT_SECONDS, SAY_AGAIN_SECONDS, BeatWatch, beat_silence


def test_how_long_no_beat_has_ticked(connection: Connection) -> None:
    assert beat_silence(connection) is None
    for name, kind, age in (("a", "beat", 50), ("b", "beat", 40), ("c", "worker", 0)):
        connection.execute(
            text(
                "INSERT INTO jobs.processes (name, kind, version, seen_at)"
                " VALUES (:name, :kind, '1', clock_timestamp() - :age * interval '1 second')"
            ),
            {"name": name, "kind": kind, "age": age},
        )
    assert beat_silence(connection) == pytest.approx(40, abs=5)


def said(silences: list[tuple[float | None, float]]) -> list[str]:
    watch = BeatWatch(0)
    with capture_logs() as logs:
        for silent, now in silences:
            watch.look(silent, now)
    return [entry["action"] for entry in logs]


LONG = BEAT_SILENT_SECONDS + 1.0


@pytest.mark.parametrize(
    ("silences", "expected"),
    [
        ([(0.5, 10), (BEAT_SILENT_SECONDS, 20)], []),
        ([(LONG, 10), (LONG + 10, 20), (1, 30)], ["beat_silent", "beat_back"]),
        ([(LONG, 0), (LONG, SAY_AGAIN_SECONDS - 1), (LONG, SAY_AGAIN_SECONDS)], ["beat_silent"] * 2),
        ([(None, 10), (None, BEAT_SILENT_SECONDS)], []),  # a worker that was started before the first beat
        ([(None, 10), (None, LONG)], ["beat_silent"]),
    ],
)
def test_is_said_once_and_now_and_then(
    silences: list[tuple[float | None, float]], expected: list[str]
) -> None:
    assert said(silences) == expected
