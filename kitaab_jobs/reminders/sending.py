"""What `reminders.deliver` does: send recorded deliveries, each at most once.

For each letter, in this order:

1. a place in the channel's pace is taken;
2. the delivery is claimed (`pending` to `sending`), and that is committed;
3. it is sent;
4. what became of it is committed.

Killed between 2 and 4, it ends as `unknown` and is not sent again: by the next start of the job, or by the sweep.
Only few are between 2 and 4 at once (the channel's `at_once`). What was surely refused is `pending` again, with the
instant of the next try; a job for whatever is still pending is enqueued when this one ends.

A run takes a few seconds: then the rest goes to a job that follows, so that a worker can be stopped at any time and no
other reminder waits long behind a slow provider.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders import outgoing, rules
from kitaab_jobs.reminders.channels import CHANNELS
from kitaab_jobs.reminders.channels.pace import Pace, PaceLost, SharedPace
from kitaab_jobs.reminders.channels.protocol import Channel, Kind, Letter, Result
from kitaab_jobs.reminders.outgoing import Claimed, End
from kitaab_jobs.reminders.postbox import Postbox, opened
from kitaab_jobs.settings import Settings

log = structlog.stdlib.get_logger(__name__)

# In seconds: what a run takes, before it hands on the rest.
BUDGET = 8.0
# When a channel cannot be used, and nobody has said for how long.
PAUSE = 30.0
# Pauses between tries to write down what was sent, while the database is away.
PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0)

T = TypeVar("T")


class Job(Protocol):
    """What this needs to know of the job that runs."""

    @property
    def id(self) -> UUID:
        """The job's id, the same in each attempt."""

    def apart(self) -> AbstractContextManager[Connection]:
        """Return a transaction that is committed whatever becomes of the job."""

    def check(self) -> None:
        """Raise if the job is to stop."""

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the job is."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """How many deliveries ended in this run, and how many are still to be sent."""

    sent: int = 0
    failed: int = 0
    unknown: int = 0
    missed: int = 0
    skipped: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """How many deliveries were ended that nobody would have ended, and notices of which there was no delivery."""

    missed: int
    unknown: int
    untold: int = 0


def sweep(session: Session, *, now: dt.datetime, limit: int) -> Swept:
    """End what is left behind: `missed` after its deadline, `unknown` where the job that was sending it is gone."""
    untold = outgoing.sweep_untold(session, limit, now - rules.NOTICE_WITHIN, now)
    swept = Swept(*outgoing.sweep(session, limit, now), untold)
    if limit in (swept.missed, swept.unknown, swept.untold):
        enqueue(session, contract.REMINDERS_SWEEP, {"limit": limit})
    return swept


def deliver(
    session: Session,
    *,
    now: dt.datetime,
    zone: str,
    delivery_ids: Sequence[int],
    job: Job,
    settings: Settings,
    budget: float = BUDGET,
) -> Delivered:
    """Send the pending ones of these deliveries, for `budget` seconds, and enqueue a job for those that are left."""
    run = _Run(now, delivery_ids, job, settings, budget)
    try:
        run.everything()
    except BaseException:
        run.give_back()
        raise
    finally:
        run.close()
    still = outgoing.left(session, delivery_ids)
    if still:
        times = [max(not_before or now, run.holds.get(channel, now)) for channel, not_before in still]
        args = {"zone": zone, "delivery_ids": list(delivery_ids)}
        first = min(times)
        enqueue(session, contract.REMINDERS_DELIVER, args, run_at=first if first > run.clock() else None)
    return Delivered(**run.counts, left=len(still))


class _Run:
    """One run: the channels it has opened, and what has become of the deliveries so far."""

    def __init__(
        self, now: dt.datetime, ids: Sequence[int], job: Job, settings: Settings, budget: float
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.holds: dict[str, dt.datetime] = {}
        self._ids = ids
        self._job = job
        self._settings = settings
        self._now = now
        self._started = time.monotonic()
        self._until = self._started + budget
        self._pace: Pace | None = None
        # When the claim was made of which nothing has begun yet.
        self._claimed_at: dt.datetime | None = None

    def clock(self) -> dt.datetime:
        """Return the time: the database's when the job started, and what has passed since."""
        return self._now + dt.timedelta(seconds=time.monotonic() - self._started)

    def everything(self) -> None:
        """Send over each channel what waits for it."""
        self.counts["unknown"] += self._apart(
            lambda c: outgoing.end_own(c, self._ids, self._job.id, self.clock())
        )
        self.counts["missed"] += self._apart(lambda c: outgoing.end_late(c, self._ids, self.clock()))
        for name, number in self._apart(lambda c: outgoing.waiting(c, self._ids, self.clock())).items():
            self._job.check()
            if (channel := self._open(name, number)) is not None:
                with opened(channel, self.clock) as postbox:
                    self._send(name, CHANNELS[name], postbox, number)

    def give_back(self) -> None:
        """Give back what was claimed just when a signal came, so that nothing of it has begun.

        Where the database cannot be reached, it ends as unknown, as what has begun does.
        """
        at = self._claimed_at
        if at is not None:
            with suppress(SQLAlchemyError), self._job.apart() as connection:
                outgoing.give_back(connection, self._ids, self._job.id, at)

    def close(self) -> None:
        """Let go of Redis."""
        if self._pace is not None:
            self._pace.close()

    def _open(self, name: str, number: int) -> Channel | None:
        if name not in CHANNELS:
            reason = f"there is no channel {name!r}; there are {', '.join(CHANNELS)}"
            while claimed := self._apart(
                lambda c: outgoing.claim(c, self._ids, name, self._job.id, number, self.clock())
            ):
                self._record([End(one.delivery_id, "failed", reason) for one in claimed])
            return None
        try:
            return CHANNELS[name].open(self._settings)
        except SettingsError as error:
            self._hold(name, PAUSE, str(error), alert=True)
            return None

    def _send(self, name: str, kind: Kind, postbox: Postbox, number: int) -> None:
        """Send over one channel until nothing waits for it, or time, pace or the provider says stop."""
        at_once = _at_once(postbox.channel)
        while number > 0:
            self._job.check()
            first_at = self._place(name, postbox.channel, min(at_once, number))
            if first_at is None:
                return
            time.sleep(max(0.0, first_at - time.monotonic()))
            letters, ends, claimed = self._claim(name, kind, min(at_once, number))
            if not claimed:
                return
            number -= len(claimed)
            postbox.load(letters)
            try:
                self._record(ends)
                self._claimed_at = None
                postbox.send(first_at)
            finally:
                # Also where the worker is told to stop: what is known is written down, and the rest given back.
                self._settle(name, kind, postbox, {one.delivery_id: one for one in claimed})
            if name in self.holds:
                return

    def _place(self, name: str, channel: Channel, number: int) -> float | None:
        """Take places in the pace. Return when the first is (of `time.monotonic`), or None: not in this run."""
        left = self._until - time.monotonic()
        if left <= 0:
            return None
        if channel.per_second is None:
            return time.monotonic()
        try:
            if self._pace is None:
                self._pace = SharedPace(self._settings.redis)
            taken, wait = self._pace.take(name, number, channel.per_second, left)
        except (PaceLost, SettingsError) as error:
            self._hold(name, PAUSE, str(error), alert=False)
            return None
        if not taken:
            self.holds[name] = self.clock() + dt.timedelta(seconds=wait)
            return None
        return time.monotonic() + wait

    def _claim(self, name: str, kind: Kind, number: int) -> tuple[list[Letter], list[End], list[Claimed]]:
        """Claim deliveries. Return the letters to send, and how those end that are not to be sent."""

        def work(connection: Connection) -> tuple[list[Claimed], dict[int, dict[str, object]]]:
            self._claimed_at = now = self.clock()
            claimed = outgoing.claim(connection, self._ids, name, self._job.id, number, now)
            users = [one.user_id for one in claimed]
            return claimed, outgoing.addresses(connection, kind.addresses, users) if users else {}

        claimed, addresses = self._apart(work)
        letters, ends = [], []
        for one in claimed:
            to = addresses.get(one.user_id)
            end = _without_sending(one, to, self.clock())
            if end is not None:
                ends.append(end)
            elif to is not None:
                letters.append(_letter(one, to, self._settings.public_url))
        return letters, ends, claimed

    def _settle(self, name: str, kind: Kind, postbox: Postbox, claimed: dict[int, Claimed]) -> None:
        done, not_begun = postbox.results()
        now = self.clock()
        ends = [_after(claimed[letter.delivery_id], result, now) for letter, result in done]
        ends += [End(letter.delivery_id, "pending", counts=False) for letter in not_begun]
        self._record(ends, lambda connection: kind.note(connection, done, now))
        for letter, result in done:
            if result.alerts:
                log.error(
                    f"{name} needs attention: {result.reason}",
                    action="delivery_alert",
                    channel=name,
                    delivery_id=letter.delivery_id,
                    reason=result.reason,
                )
        stopping = [result for _, result in done if result.stops]
        if stopping:
            self._hold(name, stopping[0].after or PAUSE, stopping[0].reason or "", alert=False)

    def _record(self, ends: Sequence[End], also: Callable[[Connection], None] | None = None) -> None:
        """Write down how these ended, and `also` what that says about addresses."""
        if not ends:
            return

        def work(connection: Connection) -> set[int]:
            recorded = outgoing.end(connection, self._job.id, ends, self.clock())
            if also is not None:
                also(connection)
            return recorded

        recorded = self._apart(work)
        for one in ends:
            if one.delivery_id in recorded and one.state != "pending":
                self.counts[one.state] += 1
        self._job.progress(sum(self.counts.values()), len(self._ids))

    def _hold(self, name: str, seconds: float, reason: str, *, alert: bool) -> None:
        """Leave the channel alone for a while."""
        self.holds[name] = self.clock() + dt.timedelta(seconds=seconds)
        say = log.error if alert else log.warning
        say(
            f"{name} stops for {seconds:.0f} s: {reason}",
            action="channel_stopped",
            channel=name,
            reason=reason,
        )

    def _apart(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction of its own, and wait for a database that is away: it has what was sent."""
        for pause in (*PATIENCE, None):
            try:
                with self._job.apart() as connection:
                    return work(connection)
            except DBAPIError as error:
                if pause is None or not (is_connection_loss(error) or is_contention(error)):
                    raise
                time.sleep(pause)
        raise AssertionError("not reached")


def _at_once(channel: Channel) -> int:
    """Return how many are claimed together: no more than go out within half a second."""
    if channel.per_second is None:
        return channel.at_once
    return max(1, min(channel.at_once, int(channel.per_second / 2)))


def _without_sending(one: Claimed, to: dict[str, object] | None, now: dt.datetime) -> End | None:
    """Return how a delivery ends that is not to be sent, or None."""
    if now >= one.deadline:
        return End(one.delivery_id, "missed", "found after its deadline", counts=False)
    if one.unwanted is not None:
        return End(one.delivery_id, "skipped", one.unwanted, counts=False)
    if to is None:
        return End(one.delivery_id, "failed", f"the person has no address for {one.channel}", counts=False)
    if to.get("refused"):
        return End(one.delivery_id, "failed", str(to["refused"]), counts=False)
    return None


def _letter(one: Claimed, to: dict[str, object], public_url: str | None) -> Letter:
    # The id is unique in this database, and the address of the app tells databases apart.
    key = uuid5(NAMESPACE_URL, f"{public_url}/deliveries/{one.delivery_id}")
    return Letter(
        delivery_id=one.delivery_id,
        user_id=one.user_id,
        channel=one.channel,
        kind=one.kind,
        key=str(key),
        collapse=f"reminder/{one.notification_id}"
        if one.notice_id is None
        else f"{one.kind}/{one.subject_id}",
        language=one.language,
        day=one.due_date,
        deadline=one.deadline,
        to=to,
        name=one.name,
    )


def _after(one: Claimed, result: Result, now: dt.datetime) -> End:
    """Return what a delivery becomes after it was sent, or not."""
    if result.fate != "later":
        return End(one.delivery_id, str(result.fate), result.reason, result.provider_id)
    wait = rules.next_try(one.attempt, result.after, random.random())
    at = now + dt.timedelta(seconds=wait)
    if at >= one.deadline:
        return End(one.delivery_id, "missed", f"{result.reason}; the next try would be after its deadline")
    return End(one.delivery_id, "pending", result.reason, not_before=at)
