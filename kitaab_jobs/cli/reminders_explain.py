"""`kitaab-jobs reminders explain`: what was decided about a person's reminders, in order and in words."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kitaab_jobs.reminders import readings

MOST = 1000

_WORDS = {
    "pending": "is to be sent",
    "sending": "is being sent",
    "sent": "was sent",
    "failed": "failed",
    "missed": "was missed",
    "skipped": "was skipped",
    "unknown": "may have been sent",
}
_NAMES = {
    "notification_time": "time",
    "timezone": "zone",
    "weekdays": "days",
    "quiet_from": "quiet hours from",
    "quiet_until": "quiet hours until",
    "channels": "channels",
    "skip_if_recorded": "not if recorded",
    "is_active": "on",
}
_PLACES = {name: place for place, name in enumerate(_NAMES)}


def explain(
    who: Annotated[str, typer.Argument(help="Their id or e-mail.", metavar="USER")],
    date: Annotated[str | None, typer.Option("--date", help="Of this local date alone, YYYY-MM-DD.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what was decided, in order; of the last 30 days without --date."""
    from kitaab_jobs.cli.times import day as day_in
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.reminders import readings

    now = dt.datetime.now(dt.UTC)
    day = day_in(date, "--date") if date else None
    since = (
        dt.datetime.combine(day - dt.timedelta(days=3), dt.time(), dt.UTC)
        if day
        else now - dt.timedelta(days=30)
    )
    with primary("kitaab-jobs cli").connect() as connection:
        user = readings.find(connection, who)
        person = readings.person(connection, user)
        ids = [reminder["notification_id"] for reminder in person.reminders]
        events = _events(readings.decisions(connection, ids, since, MOST), day)
        events += _endings(readings.deliveries(connection, ids, since, MOST), day)
    events.sort(key=lambda event: event["at"])
    if as_json:
        told = {"user_id": user, "is_here": person.is_here, "reminders": person.reminders, "events": events}
        typer.echo(json.dumps(told, default=lambda value: value.isoformat()))
        return
    for line in _state(person, now):
        typer.echo(line)
    if events:
        typer.echo()
    for event in events:
        typer.echo(f"{event['at']:%Y-%m-%d %H:%M:%S}Z  reminder {event['reminder']}: {event['what']}")
    if day:
        typer.echo(f"\n{_verdict(day, events, person)}")


def _state(person: readings.Person, now: dt.datetime) -> list[str]:
    """Say how the reminders are set, and what is next."""
    if not person.reminders:
        return ["this person has no reminder"]
    lines = [] if person.is_here else ["the account is not active: what comes due is skipped"]
    for row in person.reminders:
        lines.append(f"reminder {row['notification_id']}: {_setting(row)}")
        if not row["is_active"]:
            lines.append("  off: nothing is due")
        elif row["next_due_at"] is None:
            lines.append("  the next one is not computed yet: the dispatcher does that within a minute")
        elif row["next_due_at"] <= now:
            late = int((now - row["next_due_at"]).total_seconds())
            lines.append(f"  due since {row['next_due_at']:%Y-%m-%d %H:%MZ} ({late} s), and not claimed yet")
        else:
            lines.append(
                f"  the next one is for {row['next_due_date']}, at {row['next_due_at']:%Y-%m-%d %H:%MZ}"
            )
    return lines


def _setting(row: dict[str, Any]) -> str:
    from kitaab_jobs.timing import is_zone

    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    parts = [f"{row['notification_time']:%H:%M} in {row['timezone']}"]
    if not is_zone(row["timezone"]):
        parts.append("which is no zone and counts as UTC")
    parts.append(
        "every day" if row["weekdays"] is None else " ".join(days[d - 1] for d in sorted(row["weekdays"]))
    )
    if row["quiet_from"] is not None:
        parts.append(f"quiet {row['quiet_from']:%H:%M} to {row['quiet_until']:%H:%M}")
    if row["skip_if_recorded"]:
        parts.append("not if recorded")
    return ", ".join([*parts, "by " + " and ".join(row["channels"])])


def _events(rows: list[dict[str, Any]], day: dt.date | None) -> list[dict[str, Any]]:
    """Return what the audit log says: edits, decisions, and deliveries as they were recorded."""
    events = []
    for row in rows:
        old, new = row["old_values"] or {}, row["new_values"] or {}
        if row["action_type"] == "insert":
            what, about = f"set to {str(new['notification_time'])[:5]} in {new['timezone']}", None
        elif row["action_type"] == "update":
            changes = [
                f"{_NAMES.get(name, name)} {_value(old.get(name))} became {_value(value)}"
                for name, value in sorted(new.items(), key=lambda item: _PLACES.get(item[0], len(_PLACES)))
            ]
            what, about = f"edited: {', '.join(changes)}", None
        elif "decision" in new:
            what, about = f"{new['decision']} (next: {new['due_date']}, {_minute(new['due_at'])})", None
        else:
            because = f": {new['reason']}" if new.get("reason") else ""
            what = f"{new['due_date']}, due {_minute(new['due_at'])}, {_WORDS[new['state']]} by {new['channel']}{because}"
            about = new["due_date"]
        if day is None or about in (None, day.isoformat()):
            events.append(
                {"at": row["created_at"], "reminder": row["record_id"], "what": what, "date": about}
            )
    return events


def _endings(rows: list[dict[str, Any]], day: dt.date | None) -> list[dict[str, Any]]:
    """Return how deliveries ended that were handed on."""
    return [
        {
            "at": row["finished_at"],
            "reminder": row["notification_id"],
            "what": f"{row['due_date']}, by {row['channel']}, {_WORDS[row['state']]}"
            + (f": {row['reason']}" if row["reason"] else ""),
            "date": row["due_date"].isoformat(),
        }
        for row in rows
        if row["finished_at"] and row["state"] not in ("missed", "skipped") and day in (None, row["due_date"])
    ]


def _verdict(day: dt.date, events: list[dict[str, Any]], person: readings.Person) -> str:
    """Say what became of that date."""
    about = [event for event in events if event["date"]]
    if about:
        return f"{day}: {about[-1]['what'].partition(', ')[2]}"
    active = next((row for row in person.reminders if row["is_active"]), None)
    if active is None:
        return f"{day}: nothing, since no reminder is on"
    if active["next_due_date"] is None:
        return f"{day}: nothing yet; the next one is not computed"
    if active["next_due_date"] <= day:
        if active["weekdays"] is not None and day.isoweekday() not in active["weekdays"]:
            return f"{day}: nothing, since it is none of the chosen days"
        return f"{day}: still to come; the next one is for {active['next_due_date']}"
    if active["weekdays"] is not None and day.isoweekday() not in active["weekdays"]:
        return f"{day}: nothing, since it is none of the chosen days"
    return f"{day}: nothing was due while the reminder was set so; the edits above say why"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return (
        {True: "yes", False: "no", None: "nothing"}.get(value, str(value))
        if not isinstance(value, str)
        else value
    )


def _minute(text: str) -> str:
    return f"{dt.datetime.fromisoformat(text).astimezone(dt.UTC):%Y-%m-%d %H:%MZ}"
