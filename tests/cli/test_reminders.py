"""`kitaab-jobs reminders preview|due|explain` as an operator sees it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.reminders import jobs
from tests.cli.conftest import Command


@pytest.fixture
def reminders(ledger: Engine) -> Iterator[Engine]:
    """The database, without people."""
    yield ledger
    with ledger.begin() as connection:
        connection.execute(text("DELETE FROM users"))


def add(engine: Engine, time: str, zone: str, **columns: object) -> tuple[int, int]:
    """Add a person with a reminder; return their ids."""
    with engine.begin() as connection:
        user = connection.scalar(
            text(
                "INSERT INTO users (email, password_hash, full_name) VALUES (:mail, 'x', 'A') RETURNING user_id"
            ),
            {"mail": f"{time}{zone}@example.org"},
        )
        values = {
            "user_id": user,
            "notification_time": dt.time.fromisoformat(time),
            "timezone": zone,
            **columns,
        }
        names, slots = ", ".join(values), ", ".join(f":{name}" for name in values)
        id = connection.scalar(
            text(f"INSERT INTO notifications ({names}) VALUES ({slots}) RETURNING notification_id"), values
        )
    assert user is not None
    assert id is not None
    return user, id


def dispatch(engine: Engine, now: dt.datetime) -> None:
    with Session(engine) as session, session.begin():
        jobs.dispatch(session, now=now, limit=100)


class TestPreview:
    def test_over_a_gap(self, command: Command) -> None:
        given = ("--zone", "America/New_York", "--time", "02:30", "--from", "2026-03-07", "--count", 3)
        code, out, err = command("reminders", "preview", *given)
        assert (code, err) == (0, "")
        assert out.splitlines()[1:] == [
            "Sat 2026-03-07  02:30  2026-03-07 07:30Z  -05:00",
            "Sun 2026-03-08  03:30  2026-03-08 07:30Z  -04:00  02:30 does not exist on this date",
            "Mon 2026-03-09  02:30  2026-03-09 06:30Z  -04:00",
        ]

    @pytest.mark.parametrize(
        ("zone", "time", "date", "note"),
        [
            ("America/New_York", "1:30", "2026-11-01", "happens twice: the first"),
            ("Australia/Lord_Howe", "01:45", "2026-04-05", "happens twice: the first"),
            ("Pacific/Apia", "08:00", "2011-12-30", "the zone never had this date"),
            ("America/Scoresbysund", "23:30", "2026-03-28", "the clock shows 2026-03-29 already"),
            ("Asia/Karachi", "08:00", "2026-11-01", ""),
        ],
    )
    def test_what_the_clock_does_is_said(
        self, command: Command, zone: str, time: str, date: str, note: str
    ) -> None:
        given = ("--zone", zone, "--time", time, "--from", date, "--count", 1, "--json")
        code, out, _ = command("reminders", "preview", *given)
        (line,) = json.loads(out)
        assert code == 0
        assert line["date"] == date
        assert note in (line["note"] or "")
        assert bool(line["note"]) == bool(note)

    def test_on_some_days(self, command: Command) -> None:
        given = ("--zone", "UTC", "--time", "8:00", "--from", "2026-03-01", "--count", 3, "--days", "tue,Thu")
        _, out, _ = command("reminders", "preview", *given)
        assert [line.split()[1] for line in out.splitlines()[1:]] == [
            "2026-03-03",
            "2026-03-05",
            "2026-03-10",
        ]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ("--zone", "asia/karachi"),
                "error: 'asia/karachi' is not an IANA time zone: did you mean Asia/Karachi?",
            ),
            (("--time", "25:00"), "error: --time '25:00' is not a local time: write it like 07:00"),
            (("--time", "8"), "error: --time '8' is not a local time: write it like 07:00"),
            (("--from", "1.3.2026"), "error: --from '1.3.2026' is not a date: write it like 2026-11-25"),
            (("--from", "9999-01-01"), "error: --from '9999-01-01' is beyond the zone data"),
            (("--days", "mon,xyz"), "error: --days 'mon,xyz' names no day: 'xyz'"),
            (("--days", ","), "error: --days ',' names no day"),
        ],
    )
    def test_bad_input(self, command: Command, words: tuple[str, str], said: str) -> None:
        given = {"--zone": "UTC", "--time": "08:00", "--from": "2026-03-01"} | dict([words])
        code, out, err = command("reminders", "preview", *(word for pair in given.items() for word in pair))
        assert (code, out) == (2, "")
        assert err.startswith(said)
        assert len(err.splitlines()) == 1


class TestDue:
    def test_by_zone(self, command: Command, reminders: Engine) -> None:
        now = dt.datetime.now(dt.UTC)
        late, soon = now - dt.timedelta(seconds=90), now + dt.timedelta(minutes=20)
        add(reminders, "08:00", "Asia/Karachi", next_due_at=late, next_due_date=late.date())
        add(reminders, "09:00", "Asia/Karachi", next_due_at=soon, next_due_date=soon.date())
        add(reminders, "08:00", "Mars/Olympus")
        code, out, err = command("reminders", "due")
        assert (code, err) == (0, "")
        header, karachi, mars, sums = out.splitlines()
        assert sums.split() == ["2", "zones", "1", "1", "1", "0"]
        assert {line.rindex(line.split()[-1]) for line in (karachi, mars, sums)} == {len(header) - 1}
        assert header.split() == [
            "zone",
            "due",
            "late",
            "by",
            "within",
            "the",
            "hour",
            "first",
            "to",
            "plan",
            "to",
            "send",
        ]
        assert karachi.split()[:5] == ["Asia/Karachi", "1", karachi.split()[2], "s", "1"]
        assert 90 <= int(karachi.split()[2]) < 120
        assert "Mars/Olympus (no zone: counts as UTC)" in mars
        _, out, _ = command("reminders", "due", "--zone", "Asia/Karachi", "--json")
        (row,) = json.loads(out)
        assert (row["due"], row["soon"], row["unplanned"], row["open"], row["known"]) == (1, 1, 0, 0, True)

    def test_nothing(self, command: Command, reminders: Engine) -> None:
        _ = reminders
        assert command("reminders", "due") == (0, "nothing is due now or within the hour\n", "")

    def test_a_zone_that_is_none(self, command: Command, reminders: Engine) -> None:
        _ = reminders
        code, _, err = command("reminders", "due", "--zone", "Asia/karachi")
        assert code == 2
        assert "did you mean Asia/Karachi?" in err


class TestExplain:
    def test_each_decision_in_order(self, command: Command, reminders: Engine) -> None:
        now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
        # Not about midnight, which is in the quiet hours, and another date.
        soon = now + dt.timedelta(minutes=65 if now.hour == 23 else 5)
        user, id = add(reminders, f"{soon:%H:%M}", "UTC", quiet_from=dt.time(0), quiet_until=dt.time(0, 1))
        dispatch(reminders, now)
        dispatch(reminders, soon)
        with reminders.begin() as connection:
            connection.execute(
                text("UPDATE notifications SET notification_time = '00:00', weekdays = '{1,3}'")
            )
        dispatch(reminders, soon + dt.timedelta(minutes=1))
        code, out, err = command("reminders", "explain", user)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == f"reminder {id}: 00:00 in UTC, Mon Wed, quiet 00:00 to 00:01, by email"
        assert "the next one is for" in lines[1]
        told = [line.partition(f"reminder {id}: ")[2] for line in lines[3:]]
        assert told[0] == f"set to {soon:%H:%M} in UTC"
        assert told[1] == f"{soon.date()}, due {soon:%Y-%m-%d %H:%MZ}, is to be sent by email"
        assert told[2] == f"edited: time {soon:%H:%M}:00 became 00:00:00, days nothing became 1 3"
        assert f"there was one for {soon.date()} already" in told[3]
        assert len(told) == 4

    def test_one_date(self, command: Command, reminders: Engine) -> None:
        now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
        user, _ = add(reminders, f"{now:%H:%M}", "UTC", updated_at=now - dt.timedelta(minutes=1))
        dispatch(reminders, now)
        with reminders.begin() as connection:
            connection.execute(text("UPDATE jobs.deliveries SET state = 'sent', finished_at = now()"))
        _, out, _ = command("reminders", "explain", user, "--date", f"{now:%Y-%m-%d}")
        assert out.splitlines()[-1] == f"{now:%Y-%m-%d}: by email, was sent"
        tomorrow = now + dt.timedelta(days=1)
        _, out, _ = command("reminders", "explain", user, "--date", f"{tomorrow:%Y-%m-%d}")
        assert (
            out.splitlines()[-1]
            == f"{tomorrow:%Y-%m-%d}: still to come; the next one is for {tomorrow:%Y-%m-%d}"
        )

    def test_json(self, command: Command, reminders: Engine) -> None:
        user, id = add(reminders, "08:00", "Mars/Olympus")
        _, out, _ = command("reminders", "explain", user, "--json")
        found = json.loads(out)
        assert (found["user_id"], found["is_here"]) == (user, True)
        assert [event["reminder"] for event in found["events"]] == [id]
        _, out, _ = command("reminders", "explain", user)
        assert "which is no zone and counts as UTC" in out

    def test_by_email(self, command: Command, reminders: Engine) -> None:
        user, _ = add(reminders, "08:00", "UTC")
        _, by_id, _ = command("reminders", "explain", user)
        assert command("reminders", "explain", " 08:00utc@Example.org") == (0, by_id, "")

    def test_not_planned_yet(self, command: Command, reminders: Engine) -> None:
        user, _ = add(reminders, "08:00", "UTC")
        _, out, _ = command("reminders", "explain", user, "--date", "2030-01-01")
        assert out.splitlines()[-1] == "2030-01-01: nothing yet; the next one is not computed"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ("1000000000000",),
                "nobody has the id '1000000000000': check it; ids and e-mails are in the table users",
            ),
            (("no\x1b[31m@where",), "nobody has the e-mail 'no\\x1b[31m@where': check it; ids and"),
            (("0",), "'0' is neither an id nor an e-mail: give one, such as 17 or a@example.org"),
            (("9" * 19,), f"'{'9' * 19}' is neither an id nor an e-mail"),
            (("٣",), "'٣' is neither an id nor an e-mail"),
            (("",), "'' is neither an id nor an e-mail"),
            (("1", "--date", "0001-01-01"), "--date '0001-01-01' is beyond the zone data"),
            (("1", "--date", "soon"), "--date 'soon' is not a date: write it like 2026-11-25"),
        ],
    )
    def test_bad_input(self, command: Command, reminders: Engine, words: tuple[str, ...], said: str) -> None:
        _ = reminders
        code, out, err = command("reminders", "explain", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {said}")
