"""The decisions of reminders that need no database.

An occurrence is an instant and its nominal local date. Of what was due, the latest that may still be sent is sent;
everything else is recorded as missed or skipped, with the reason in words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kitaab_jobs.errors import NoSuchInstant
from kitaab_jobs.timing import is_zone, local_date, local_time, next_local, to_utc

SEND_WITHIN = dt.timedelta(hours=2)
# After an outage each of so many missed ones gets its row; older ones are counted in the reason of the oldest.
MISSED_ROWS = 31

PENDING, MISSED, SKIPPED = "pending", "missed", "skipped"
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """When somebody wants to be reminded: `weekdays` are 0 (Monday) to 6, None for every day."""

    time: dt.time
    zone: str
    weekdays: frozenset[int] | None = None
    quiet: tuple[dt.time, dt.time] | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """An occurrence: its instant, and the local date that it belongs to."""

    at: dt.datetime
    date: dt.date


@dataclass(frozen=True, slots=True)
class Occurrence:
    """What is recorded of an occurrence; it is sent before `deadline`, or not at all."""

    at: dt.datetime
    date: dt.date
    deadline: dt.datetime
    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What was due, and what is next. `last_date`: the last date that was used, where the zone made it another."""

    occurrences: tuple[Occurrence, ...]
    next: Due
    last_date: dt.date | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """What was planned before an edit that is not resolved yet; `due` is None where nothing was."""

    due: Due | None
    rule: Rule


def iso_weekdays(days: Sequence[int] | None) -> frozenset[int] | None:
    """Return days of the week as `timing` counts them; they are stored as 1 (Monday) to 7."""
    return None if days is None else frozenset(day - 1 for day in days)


def known(zone: str) -> str:
    """Return `zone`, or UTC where that is not a zone."""
    return zone if is_zone(zone) else "UTC"


def first_after(rule: Rule, after: dt.datetime, later_than: dt.date | None) -> Due:
    """Return the first occurrence after that instant on a local date later than `later_than`."""
    first = later_than + _DAY if later_than else None
    date, at = next_local(after, rule.time, known(rule.zone), not_before_date=first, weekdays=rule.weekdays)
    return Due(at, date)


def settle_due(rule: Rule, due: Due, now: dt.datetime) -> Settled:
    """Decide on the planned occurrence `due` and those that came due after it."""
    owed, following = [due], first_after(rule, due.at, due.date)
    while following.at <= now:
        owed.append(following)
        following = first_after(rule, following.at, following.date)
    return Settled(judge(rule, owed, now), following)


def settle_edit(
    rule: Rule,
    edit: Edit | None,
    last: Due | None,
    since: dt.datetime,
    now: dt.datetime,
) -> Settled:
    """Decide what a new or edited reminder owes, and what is next.

    `since` is when it was made or edited; what the old rule owed by then is still owed. `last` is the last one that
    was handed to delivery, `edit` what was planned before; None for a new one.
    """
    since = min(since, now)
    zone = known(rule.zone)
    moved = edit is not None and known(edit.rule.zone) != zone
    last_date = last.date if last else None
    if moved and last:
        last_date = local_date(last.at, zone)
    owed = [due for due in _owed(edit, since, zone, moved) if last_date is None or due.date > last_date]
    kept = _kept(rule, edit, last_date, since) if moved else None
    # A reminder that was never planned has waited for the platform: it starts now.
    start = since if edit else max(since, now - SEND_WITHIN)
    following = first_after(rule, start, last_date)
    if kept and kept.at <= now:
        owed.append(kept)
    while following.at <= now:
        owed.append(following)
        following = first_after(rule, following.at, following.date)
    occurrences = judge(rule, owed, now)
    sent = next((o.date for o in occurrences if o.state == PENDING), None)
    if sent and following.date <= sent:
        following = first_after(rule, following.at, sent)
    if kept and kept.at > now and (sent is None or kept.date > sent):
        following = kept
    note = _note(rule, edit, last_date, since, following, kept) if edit or start > since else None
    return Settled(occurrences, following, last_date if moved else None, note)


def _owed(edit: Edit | None, since: dt.datetime, zone: str, moved: bool) -> Iterator[Due]:
    """Yield what the old rule owed at the time of the edit, with dates of the zone that holds now."""
    due = edit.due if edit else None
    while edit and due and due.at <= since:
        yield Due(due.at, local_date(due.at, zone)) if moved else due
        due = first_after(edit.rule, due.at, due.date)


def _kept(rule: Rule, edit: Edit | None, last_date: dt.date | None, since: dt.datetime) -> Due | None:
    """Return today's old occurrence, where the new zone has no other one to give for today."""
    if edit is None or edit.due is None or edit.due.at <= since:
        return None
    zone = known(rule.zone)
    today = local_date(since, zone)
    if (last_date is not None and today <= last_date) or local_date(edit.due.at, zone) != today:
        return None
    if rule.weekdays is not None and today.weekday() not in rule.weekdays:
        return None
    instant = _instant(today, rule.time, zone)
    return Due(edit.due.at, today) if instant is None or instant <= since else None


def planned_anew(rule: Rule, planned: Due, now: dt.datetime) -> Due:
    """Return the planned occurrence as today's zone data have it, for the same nominal date.

    What the data put into the past stays where it is, and so does the instant that an edit of the zone has kept. A
    date that the zone lost takes the first instant after it, since that date is what was promised.
    """
    instant = _instant(planned.date, rule.time, known(rule.zone))
    if instant is None:
        instant = _instant(planned.date + _DAY, dt.time(), known(rule.zone)) or planned.at
    return Due(instant, planned.date) if instant > now else planned


def judge(rule: Rule, owed: Sequence[Due], now: dt.datetime) -> tuple[Occurrence, ...]:
    """Return what is recorded of each that was due, in order: the latest that may still be sent is pending."""
    judged: list[Occurrence] = []
    sent = False
    for due in reversed(owed[-MISSED_ROWS:]):
        until, why = deadline(due, rule.zone, rule.quiet)
        if rule.quiet and _in_quiet(due, rule.zone, rule.quiet):
            state, reason = SKIPPED, f"it falls into {_quiet(rule.quiet)}"
        elif now >= until:
            minutes = int((now - due.at).total_seconds() // 60)
            state, reason = MISSED, f"found {minutes} minutes late: {why}"
        elif sent:
            state, reason = MISSED, "a later one was due before it was sent"
        else:
            state, reason, sent = PENDING, None, True
        judged.append(Occurrence(due.at, due.date, until, state, reason))
    if (older := owed[:-MISSED_ROWS]) and judged:
        oldest = judged[-1]
        more = (
            f"; the {len(older)} before it, from {older[0].date} to {older[-1].date}, were missed too:"
            " the dispatcher did not run"
        )
        judged[-1] = Occurrence(
            oldest.at, oldest.date, oldest.deadline, oldest.state, (oldest.reason or "") + more
        )
    return tuple(reversed(judged))


@lru_cache(maxsize=65_536)
def deadline(due: Due, zone: str, quiet: tuple[dt.time, dt.time] | None) -> tuple[dt.datetime, str]:
    """Return the instant from which a reminder is not sent any more, and why in words."""
    zone = known(zone)
    ends = [(due.at + SEND_WITHIN, "it is sent within 2 hours")]
    day = max(due.date, local_date(due.at, zone))
    midnight = None
    while midnight is None:
        day += _DAY
        midnight = _instant(day, dt.time(), zone)
    ends.append((midnight, "its local day was over"))
    if quiet and not _in_quiet(due, zone, quiet):
        ends.append((next_local(due.at, quiet[0], zone)[1], f"{_quiet(quiet)} had begun"))
    return min(ends)


def _in_quiet(due: Due, zone: str, quiet: tuple[dt.time, dt.time]) -> bool:
    time, (start, end) = local_time(due.at, known(zone)), quiet
    return start <= time < end if start < end else not end <= time < start


def _quiet(quiet: tuple[dt.time, dt.time]) -> str:
    return f"the quiet hours {quiet[0]:%H:%M} to {quiet[1]:%H:%M}"


def _instant(date: dt.date, time: dt.time, zone: str) -> dt.datetime | None:
    try:
        return to_utc(date, time, zone)
    except NoSuchInstant:
        return None


def _note(
    rule: Rule,
    edit: Edit | None,
    last_date: dt.date | None,
    since: dt.datetime,
    following: Due,
    kept: Due | None,
) -> str:
    """Say in words why the next one is the next one."""
    if edit is None:
        return f"set at {since:%Y-%m-%d %H:%MZ}, and planned for the first time now: nothing was due before"
    changes = [
        f"{what} {old} became {new}"
        for what, old, new in (
            ("time", f"{edit.rule.time:%H:%M}", f"{rule.time:%H:%M}"),
            ("zone", edit.rule.zone, rule.zone),
            ("days", _days(edit.rule), _days(rule)),
        )
        if old != new
    ]
    text = f"edited at {since:%Y-%m-%d %H:%MZ}: {', '.join(changes) or 'turned on'}"
    today = local_date(since, known(rule.zone))
    if following is kept:
        return f"{text}; {rule.time:%H:%M} had passed there, so the planned instant of {today} is kept"
    if last_date is not None and last_date >= today:
        return f"{text}; there was one for {last_date} already, so the next is for {following.date}"
    if following.date == today:
        return f"{text}; there was none for {today} yet, so the next is for that day"
    return f"{text}; {rule.time:%H:%M} of {today} is no more to come, so the next is for {following.date}"


def _days(rule: Rule) -> str:
    if rule.weekdays is None:
        return "every day"
    return " ".join(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[day] for day in sorted(rule.weekdays))


# A notice is still news for so long.
NOTICE_WITHIN = dt.timedelta(hours=24)

# Between tries of what a provider refused without saying until when: seconds, doubled each time.
RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 1800.0


def next_try(attempt: int, after: float | None, luck: float) -> float:
    """Return the seconds from attempt number `attempt`, from 1, to the next; `luck` is from 0 to 1.

    `after` is what the provider asked for; never earlier than that, and not all at the same moment.
    """
    if after is not None:
        return after + luck * min(10.0, after / 4)
    return min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(attempt - 1, 16)) * (0.75 + luck / 2)
