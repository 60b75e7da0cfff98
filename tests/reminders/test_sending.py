"""Deliveries as workers send them: each at most once, each with an end and its reason."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from kitaab_jobs.errors import Cancelled
from kitaab_jobs.reminders import notices, outgoing, postbox, sending
from kitaab_jobs.reminders.outgoing import End
from kitaab_jobs.reminders.postbox import Postbox
from tests.reminders.channels.mailserver import MailServer
from tests.reminders.channels.pushserver import PushServer
from tests.reminders.postoffice import AMPLE, PostOffice


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class TestSent:
    def test_over_every_channel(self, office: PostOffice) -> None:
        user = office.person(language="ar")
        office.browser(user)
        ids = [office.delivery(user, channel) for channel in ("email", "webpush", "log")]
        assert office.deliver(*ids) == {"sent": 3}
        assert [office.state(id) for id in ids] == [("sent", None)] * 3
        assert office.mail.handler.recipients == [office.email_of(user)]
        assert len(office.push.pushed) == 1
        assert office.column(ids[0], "provider_id") == "250 2.0.0 queued as 4F2A1"
        assert [office.column(id, "attempt") for id in ids] == [1, 1, 1]
        assert office.followers() == []

    def test_to_each_in_their_own_language_and_with_nobody_elses_data(self, office: PostOffice) -> None:
        people = [office.person(language=each) for each in ("en", "ar", "ur", "tr", "id")]
        office.deliver(*[office.delivery(each) for each in people])
        assert len(office.mail.handler.connections) == 1
        languages = [message["Content-Language"] for message in office.mail.handler.taken]
        assert languages == ["en", "ar", "ur", "tr", "id"]
        for user, message in zip(people, office.mail.handler.taken, strict=True):
            text = message.as_string()
            others = [office.email_of(other) for other in people if other != user]
            assert office.email_of(user) in text
            assert not any(other in text for other in others)
            assert f"token={user}.email.reminder" in text.replace("=\n", "").replace("=3D", "=")

    def test_a_second_job_for_the_same_finds_nothing(self, office: PostOffice) -> None:
        id = office.delivery()
        assert office.deliver(id) == {"sent": 1}
        assert office.deliver(id) == {}
        assert len(office.mail.handler.taken) == 1

    def test_two_workers_at_once(self, office: PostOffice) -> None:
        ids = [office.delivery() for _ in range(30)]
        jobs = [office.enqueue(*ids), office.enqueue(*reversed(ids))]
        threads = [threading.Thread(target=office.start, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert office.states() == {"sent": 30}
        assert len(office.mail.handler.recipients) == len(set(office.mail.handler.recipients)) == 30


class TestNotSent:
    @pytest.mark.parametrize(
        ("change", "state", "reason"),
        [
            ("UPDATE users SET email_verified = false", "failed", "the address is not confirmed"),
            ("UPDATE users SET is_active = false", "skipped", "the person has left"),
            ("UPDATE users SET deleted_at = now()", "skipped", "the person has left"),
            (
                "INSERT INTO channel_opt_outs (user_id, channel, kind) SELECT user_id, 'email', 'reminder' FROM users",
                "skipped",
                "the person has unsubscribed from this over email",
            ),
            (
                "UPDATE notifications SET is_active = false",
                "skipped",
                "the reminder was turned off meanwhile",
            ),
            (
                "UPDATE notifications SET channels = '{webpush}'",
                "skipped",
                "the channel was turned off meanwhile",
            ),
            (
                "UPDATE jobs.deliveries SET deadline = now() - interval '1 second'",
                "missed",
                "not sent before its deadline",
            ),
            (
                "UPDATE jobs.deliveries SET channel = 'webpush'",
                "failed",
                "the person has no address for webpush",
            ),
            (
                "UPDATE jobs.deliveries SET channel = 'pigeon'",
                "failed",
                "there is no channel 'pigeon'; there are email, webpush, log",
            ),
        ],
    )
    def test_and_why(self, office: PostOffice, change: str, state: str, reason: str) -> None:
        id = office.delivery()
        office.run(change)
        assert office.deliver(id) == {state: 1}
        assert office.state(id) == (state, reason)
        assert office.mail.handler.taken == []
        assert office.push.pushed == []

    def test_other_opt_outs_do_not_matter(self, office: PostOffice) -> None:
        user = office.person()
        for channel, kind in (("email", "completion"), ("webpush", "reminder")):
            office.run(
                "INSERT INTO channel_opt_outs (user_id, channel, kind) VALUES (:u, :c, :k)",
                u=user,
                c=channel,
                k=kind,
            )
        assert office.deliver(office.delivery(user)) == {"sent": 1}


class TestRefused:
    def test_one_persons_failure_hurts_nobody_else(self, office: PostOffice, mail: MailServer) -> None:
        people = [office.person() for _ in range(9)]
        answers = ["550 5.1.1 no", "drop", "450 4.2.0 later"]
        for user, answer in zip(people[1::3], answers, strict=True):
            mail.behaviour.rcpt[office.email_of(user)] = answer
        ids = [office.delivery(user) for user in people]
        assert office.deliver(*ids) == {"sent": 6, "failed": 1, "left": 2}
        assert office.states() == {"sent": 6, "failed": 1, "pending": 2}

    def test_a_hard_bounce_suppresses_the_address(self, office: PostOffice, mail: MailServer) -> None:
        user = office.person(email="Nobody@Example.org")
        mail.behaviour.rcpt["Nobody@Example.org"] = "550 5.1.1 <nobody@example.org> unknown"
        office.deliver(office.delivery(user))
        assert office.one("SELECT reason FROM suppressed_addresses") == "550 5.1.1 <***> unknown"
        office.run("UPDATE jobs.deliveries SET due_date = due_date - 1")
        mail.behaviour.rcpt.clear()
        second = office.delivery(user)
        assert office.deliver(second) == {"failed": 1}
        assert office.state(second)[1] == "the address does not exist: 550 5.1.1 <***> unknown"
        assert mail.handler.taken == []

    def test_tried_again_later_and_then_sent(self, office: PostOffice, mail: MailServer) -> None:
        id = office.delivery()
        mail.behaviour.rcpt_default = "450 4.2.0 greylisted"
        assert office.deliver(id) == {"left": 1}
        assert office.state(id) == ("pending", "450 4.2.0 greylisted")
        [(follower, seconds)] = office.followers()
        assert 20 <= seconds <= 46
        mail.behaviour.rcpt_default = "250 OK"
        office.start(follower)
        assert office.state(id)[0] == "pending", "the job came before its time"
        office.run("UPDATE jobs.deliveries SET not_before = now()")
        office.start(office.followers()[0][0])
        assert office.state(id) == ("sent", None)
        assert office.column(id, "attempt") == 2
        assert len(mail.handler.taken) == 1

    def test_never_past_the_deadline(self, office: PostOffice, mail: MailServer) -> None:
        id = office.delivery(minutes=0.2)
        mail.behaviour.rcpt_default = "450 4.2.0 greylisted"
        assert office.deliver(id) == {"missed": 1}
        assert office.state(id) == (
            "missed",
            "450 4.2.0 greylisted; the next try would be after its deadline",
        )
        assert office.followers() == []

    def test_a_provider_that_does_not_accept_us_is_left_alone(
        self, office: PostOffice, mail: MailServer
    ) -> None:
        mail.behaviour.mail = "553 5.7.1 you may not send as this"
        ids = [office.delivery() for _ in range(5)]
        with capture_logs() as logs:
            assert office.deliver(*ids) == {"left": 5}
        assert len([each for each in logs if each.get("action") == "delivery_alert"]) == 1
        assert [office.column(id, "attempt") for id in ids] == [1, 0, 0, 0, 0]
        [(_, seconds)] = office.followers()
        assert 290 <= seconds <= 315

    def test_not_configured(self, office: PostOffice) -> None:
        office.more = {"public_url": None}
        user = office.person()
        ids = [office.delivery(user), office.delivery(user, "log")]
        with capture_logs() as logs:
            assert office.deliver(*ids) == {"sent": 1, "left": 1}
        [stopped] = [each for each in logs if each.get("action") == "channel_stopped"]
        assert "KITAAB_PUBLIC_URL is not set" in stopped["reason"]
        assert stopped["log_level"] == "error"

    def test_redis_is_away(self, office: PostOffice) -> None:
        office.redis = "redis://127.0.0.1:1/0"
        id = office.delivery()
        assert office.deliver(id) == {"left": 1}
        assert office.column(id, "attempt") == 0
        assert office.mail.handler.taken == []


class TestPush:
    def test_a_dead_subscription_is_removed_and_hurts_no_other_channel(
        self, office: PostOffice, push: PushServer
    ) -> None:
        user = office.person()
        office.browser(user, "/dead")
        office.browser(user, "/alive")
        push.answers["/dead"] = (410, {})
        ids = [office.delivery(user, "webpush"), office.delivery(user, "email")]
        assert office.deliver(*ids) == {"sent": 2}
        left = office.one("SELECT string_agg(endpoint, ' ') FROM push_subscriptions")
        assert left.endswith("/alive")
        assert office.one("SELECT last_used_at > now() - interval '1 minute' FROM push_subscriptions")

    def test_the_last_one_dead(self, office: PostOffice, push: PushServer) -> None:
        user = office.person()
        office.browser(user)
        push.default = (404, {})
        ids = [office.delivery(user, "webpush"), office.delivery(user, "email")]
        assert office.deliver(*ids) == {"sent": 1, "failed": 1}
        assert office.one("SELECT count(*) FROM push_subscriptions") == 0

    def test_retry_after(self, office: PostOffice, push: PushServer) -> None:
        people = [office.person() for _ in range(3)]
        for number, user in enumerate(people):
            office.browser(user, f"/{number}")
        push.answers["/1"] = (429, {"Retry-After": "600"})
        office.more = {"pushes_per_second": 2}  # one at a time
        ids = [office.delivery(user, "webpush") for user in people]
        assert office.deliver(*ids) == {"sent": 1, "left": 2}
        [(_, seconds)] = office.followers()
        assert 30 < seconds <= 70, "the others wait for the service for a minute at most"
        assert office.one("SELECT max(extract(epoch FROM not_before - now())) FROM jobs.deliveries") > 590

    @pytest.mark.parametrize("asked", ["7300", "a date"])
    def test_retry_after_beyond_the_deadline(self, office: PostOffice, push: PushServer, asked: str) -> None:
        user = office.person()
        office.browser(user)
        if asked == "a date":
            asked = format_datetime(now() + dt.timedelta(hours=3), usegmt=True)
        push.default = (429, {"Retry-After": asked})
        id = office.delivery(user, "webpush")
        assert office.deliver(id) == {"missed": 1}
        state, reason = office.state(id)
        assert state == "missed"
        assert reason is not None
        assert reason.endswith("answered 429; the next try would be after its deadline")
        assert office.followers() == []

    def test_an_ambiguous_answer_is_unknown_and_not_tried_again(
        self, office: PostOffice, push: PushServer
    ) -> None:
        user = office.person()
        office.browser(user)
        push.default = "drop"
        id = office.delivery(user, "webpush")
        assert office.deliver(id) == {"unknown": 1}
        assert office.state(id)[0] == "unknown"
        assert office.followers() == []
        assert office.deliver(id) == {}
        assert len(push.pushed) == 1

    def test_many_at_once(self, office: PostOffice, push: PushServer) -> None:
        people = [office.person() for _ in range(40)]
        for number, user in enumerate(people):
            office.browser(user, f"/{number}")
        inside, most, change = 0, 0, threading.Condition()

        def on_push() -> None:
            """Wait until five are in here."""
            nonlocal inside, most
            with change:
                inside += 1
                most = max(most, inside)
                change.notify_all()
                change.wait_for(lambda: most >= 5, timeout=20)
                inside -= 1

        push.on_push = on_push
        ids = [office.delivery(user, "webpush") for user in people]
        assert office.deliver(*ids) == {"sent": 40}
        assert 5 <= most <= 16


class TestTime:
    def test_what_does_not_fit_is_handed_on(
        self, office: PostOffice, mail: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time of this run is over when the third letter has been taken."""
        passed = 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed, sleep=time.sleep)
        monkeypatch.setattr(sending, "time", clock)

        def on_data() -> None:
            nonlocal passed
            if len(mail.handler.taken) == 2:
                passed = 2 * AMPLE

        mail.handler.on_data = on_data
        ids = [office.delivery() for _ in range(8)]
        assert office.deliver(*ids) == {"sent": 3, "left": 5}
        mail.handler.on_data = lambda: None
        passed = 0.0
        [(follower, seconds)] = office.followers()
        assert seconds <= 0
        office.start(follower)
        assert office.states() == {"sent": 8}
        assert len(set(office.mail.handler.recipients)) == 8

    def test_the_pace_holds_over_workers(self, office: PostOffice, mail: MailServer) -> None:
        """Each letter comes when its place does, or later: thirty at twenty a second, whoever sends them."""
        office.more = {"emails_per_second": 20}
        jobs = [office.enqueue(*[office.delivery() for _ in range(15)]) for _ in range(2)]
        threads = [threading.Thread(target=office.start, args=(job,)) for job in jobs]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        times = sorted(mail.handler.times)
        assert len(times) == 30
        assert [place for place, at in enumerate(times) if at < began + place / 20] == []

    def test_too_slow_a_pace_is_waited_for_outside(self, office: PostOffice) -> None:
        office.more = {"emails_per_second": 0.01}
        ids = [office.delivery() for _ in range(3)]
        assert office.deliver(*ids, budget=50) == {"sent": 1, "left": 2}
        [(_, seconds)] = office.followers()
        assert 50 < seconds <= 100


class TestStopped:
    def test_cancelled_between_two(self, office: PostOffice, mail: MailServer) -> None:
        ids = [office.delivery() for _ in range(4)]
        job = office.enqueue(*ids)
        runner = office.runner()
        stop = "somebody cancelled it"
        mail.handler.on_data = lambda: _contexts(runner)[0].stop(stop)
        office.run("UPDATE jobs.jobs SET state = 'published' WHERE id = :id", id=job)
        ended = sending_execute(runner, job)
        assert isinstance(ended.error, Cancelled)
        assert office.states() == {"sent": 1, "pending": 3}

    @pytest.mark.parametrize("channel", ["email", "webpush"])
    def test_told_to_end_in_the_middle(self, office: PostOffice, channel: str) -> None:
        """SystemExit is what a worker that is told to end raises in its job, wherever that is."""
        people = [office.person() for _ in range(40)]
        for number, user in enumerate(people):
            office.browser(user, f"/{number}")
        office.more = {"pushes_per_second": 60, "emails_per_second": 60}
        ids = [office.delivery(user, channel) for user in people]
        main = threading.get_ident()
        count = 0

        def interrupt() -> None:
            nonlocal count
            count += 1
            if count == 6:
                _raise_in(main, SystemExit)

        office.mail.handler.on_data = office.push.on_push = interrupt
        ended = office.start(office.enqueue(*ids))
        assert isinstance(ended.error, SystemExit)
        taken = len(office.mail.handler.taken) + len(office.push.pushed)
        states = office.states()
        assert set(states) == {"sent", "pending"}, "what was on its way is known, and the rest was given back"
        assert states["sent"] == taken
        assert taken >= 6
        assert office.one("SELECT sum(attempt) FROM jobs.deliveries") == taken

    @pytest.mark.parametrize("channel", ["email", "webpush"])
    def test_told_to_end_before_the_first_has_begun(
        self, office: PostOffice, channel: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Claimed, and the claim is on record; but nothing of it has gone out, so it is given back."""
        user = office.person()
        office.browser(user)
        id = office.delivery(user, channel)

        def told_to_end(_postbox: Postbox, _first_at: float) -> None:
            assert office.state(id)[0] == "sending"
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(Postbox, "send", told_to_end)
            ended = office.start(office.enqueue(id))
        assert isinstance(ended.error, SystemExit)
        assert office.state(id) == ("pending", None)
        assert (office.column(id, "attempt"), office.column(id, "claimed_by")) == (0, None)
        assert office.deliver(id) == {"sent": 1}

    @pytest.mark.parametrize("point", ["sending._letter", "sending._Run._record", "postbox.Postbox.load"])
    def test_told_to_end_just_when_the_claim_is_on_record(
        self, office: PostOffice, point: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of it has begun, so that it is not lost."""
        id = office.delivery()

        def told_to_end(*_: Any) -> None:
            assert office.states() == {"sending": 1}
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(f"kitaab_jobs.reminders.{point}", told_to_end)
            ended = office.start(office.enqueue(id))
        assert isinstance(ended.error, SystemExit)
        assert office.state(id)[0] == "pending"
        assert (office.column(id, "attempt"), office.column(id, "claimed_by")) == (0, None)
        assert office.deliver(id) == {"sent": 1}

    @pytest.mark.parametrize("point", ["end_own", "addresses"])
    def test_what_another_start_of_the_job_has_claimed_is_not_given_back(
        self, office: PostOffice, point: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one before was killed while it sent it, or the next one is sending it: it may have gone out."""
        ids = [office.delivery() for _ in range(2)]
        job = office.enqueue(*ids)

        def told_to_end(*_: Any) -> None:
            office.run(
                "UPDATE jobs.deliveries SET state = 'sending', claimed_by = :job, started_at = now() - interval '1 s'"
                " WHERE delivery_id = :id",
                job=job,
                id=ids[1],
            )
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(outgoing, point, told_to_end)
            patch.setattr(sending, "_at_once", lambda _: 1)
            ended = office.start(job)
        assert isinstance(ended.error, SystemExit)
        assert [office.state(id)[0] for id in ids] == ["pending", "sending"]

    @pytest.mark.parametrize("channel", ["email", "webpush"])
    def test_told_to_end_just_when_one_has_begun(
        self, office: PostOffice, channel: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signal comes between any two instructions: what has gone out is not given back, to go out again."""

        user = office.person()
        office.browser(user)
        ids = [office.delivery(user, channel)]
        with monkeypatch.context() as patch:
            patch.setattr(postbox, "ThreadPoolExecutor", Interrupted)
            ended = office.start(office.enqueue(*ids))
        assert isinstance(ended.error, SystemExit)
        assert office.states() == {"sent": 1}
        assert len(office.mail.handler.taken) + len(office.push.pushed) == 1

    def test_told_to_end_again_while_it_looks_which_have_begun(
        self, office: PostOffice, mail: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is not known is not given back: the next to look ends it as `unknown`, and it goes out once."""
        whole = postbox._Letter.hold_back

        def told_again(letter: postbox._Letter) -> bool:
            whole(letter)
            raise SystemExit

        id = office.delivery()
        with monkeypatch.context() as patch:
            patch.setattr(postbox, "ThreadPoolExecutor", Interrupted)
            patch.setattr(postbox._Letter, "hold_back", told_again)
            ended = office.start(office.enqueue(id))
        assert isinstance(ended.error, SystemExit)
        assert office.state(id)[0] == "sending"
        office.deliver(id)
        assert len(mail.handler.taken) == 1

    def test_many_on_their_way_are_waited_for_no_longer_than_one(
        self, office: PostOffice, push: PushServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A provider that hangs does not hold up a worker's stop once for each letter."""
        people = [office.person() for _ in range(5)]
        for number, user in enumerate(people):
            office.browser(user, f"/{number}")
        inside, let_go = threading.Semaphore(0), threading.Event()

        def hang() -> None:
            inside.release()
            let_go.wait(60)

        push.on_push = hang
        waited: list[float] = []
        result = postbox._Letter.result

        def told_to_end(letter: postbox._Letter, patience: float | None) -> Any:
            if patience is None:
                for _ in people:
                    assert inside.acquire(timeout=20)
                raise SystemExit
            waited.append(patience)
            return result(letter, patience)

        monkeypatch.setattr(postbox, "PATIENCE", 0.3)
        monkeypatch.setattr(postbox._Letter, "result", told_to_end)
        try:
            ended = office.start(office.enqueue(*[office.delivery(user, "webpush") for user in people]))
        finally:
            let_go.set()
        assert isinstance(ended.error, SystemExit)
        assert office.states() == {"unknown": 5}
        assert len(waited) == 5
        assert sum(waited) <= 0.31


class Interrupted(ThreadPoolExecutor):
    """Its caller is told to end when a thread has done what it was given."""

    def submit(self, *given: Any, **more: Any) -> Any:
        super().submit(*given, **more).result()
        raise SystemExit


def sending_execute(runner: Any, job: Any) -> Any:
    from kitaab_jobs.runtime.execute import execute

    return execute(runner, job, {}, from_ledger=True)


def _contexts(runner: Any) -> list[Any]:
    return [context for held in runner.heartbeat._held for context in held.contexts]


def _raise_in(thread: int, error: type[BaseException]) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def test_what_another_job_sends_is_left_alone(office: PostOffice) -> None:
    """It is in the hands of another job: neither taken from it, nor ended, nor sent a second time."""
    ids = [office.delivery() for _ in range(2)]
    other = office.enqueue(ids[0])
    office.run(
        "UPDATE jobs.deliveries SET state = 'sending', claimed_by = :job WHERE delivery_id = :id",
        job=other,
        id=ids[0],
    )
    assert office.deliver(*ids) == {"sent": 1}
    assert [office.state(id)[0] for id in ids] == ["sending", "sent"]
    with office.worker.begin() as connection:
        mine = office.enqueue(ids[0])
        assert outgoing.end(connection, mine, [End(ids[0], "sent")], now()) == set()
        assert outgoing.end(connection, other, [End(ids[0], "sent")], now()) == {ids[0]}


def test_a_worker_that_wakes_up_too_late_changes_nothing(office: PostOffice, mail: MailServer) -> None:
    """Its delivery was ended while it was frozen in the middle of sending it; what it says of it then is too late."""
    id = office.delivery()

    def frozen() -> None:
        office.run("UPDATE jobs.deliveries SET state = 'unknown', reason = 'gone', finished_at = now()")

    mail.handler.on_data = frozen
    assert office.deliver(id) == {}
    assert office.state(id) == ("unknown", "gone")


class TestSweep:
    def sweep(self, office: PostOffice) -> sending.Swept:
        with Session(office.worker) as session, session.begin():
            return sending.sweep(session, now=now(), limit=100)

    def test_what_nobody_sent_in_time(self, office: PostOffice) -> None:
        late, early = office.delivery(minutes=-1), office.delivery()
        office.run("UPDATE jobs.deliveries SET reason = '450 later' WHERE delivery_id = :id", id=late)
        assert self.sweep(office) == sending.Swept(missed=1, unknown=0)
        assert office.state(late) == ("missed", "not sent before its deadline; the last try: 450 later")
        assert office.state(early)[0] == "pending"

    def test_what_nobody_sends_any_more(self, office: PostOffice) -> None:
        ids = [office.delivery() for _ in range(2)]
        jobs = [office.enqueue(id) for id in ids]
        for id, job in zip(ids, jobs, strict=True):
            office.run(
                "UPDATE jobs.deliveries SET state = 'sending', claimed_by = :job WHERE delivery_id = :id",
                job=job,
                id=id,
            )
        office.run("UPDATE jobs.jobs SET state = 'running' WHERE id = :id", id=jobs[0])
        assert self.sweep(office) == sending.Swept(missed=0, unknown=1)
        assert office.state(ids[0])[0] == "sending"
        assert office.state(ids[1]) == ("unknown", "the worker ended while it was being sent")


class TestNotices:
    def notice(self, office: PostOffice, user: int, name: str = "Forty days of Fajr") -> int:
        deed = office.one(
            "INSERT INTO deeds (user_id, category_type, name) VALUES (:u, 'hasanaat', :n) RETURNING deed_id",
            u=user,
            n=name,
        )
        merit = office.one(
            """
            INSERT INTO merits (user_id, deed_id, name, start_date, percent, completed_at, completed_on)
            VALUES (:u, :d, :n, '2026-10-01', 100, now(), '2026-11-24') RETURNING merit_id
            """,
            u=user,
            d=deed,
            n=name,
        )
        return int(
            office.one(
                """
                INSERT INTO jobs.notices (user_id, kind, merit_id, happened_on)
                VALUES (:u, 'merit_completed', :m, '2026-11-24') RETURNING notice_id
                """,
                u=user,
                m=merit,
            )
        )

    def notify(self, office: PostOffice, *ids: int) -> int:
        with Session(office.worker) as session, session.begin():
            return notices.notify(session, now=now(), notice_ids=ids).deliveries

    def state(self, office: PostOffice, id: int) -> tuple[str, str | None]:
        return (
            office.one("SELECT state::text FROM jobs.notices WHERE notice_id = :id", id=id),
            office.one("SELECT reason FROM jobs.notices WHERE notice_id = :id", id=id),
        )

    def test_once_over_each_channel(self, office: PostOffice) -> None:
        user = office.person(language="tr")
        browser = office.browser(user)
        office.run(
            "INSERT INTO notifications (user_id, notification_time, timezone, channels)"
            " VALUES (:u, '07:00', 'Europe/Istanbul', '{email,webpush}')",
            u=user,
        )
        notice = self.notice(office, user)
        assert self.notify(office, notice) == 2
        assert self.notify(office, notice) == 0
        assert self.state(office, notice) == ("sending", None)
        [(job, _)] = office.followers()
        office.start(job)
        assert office.states() == {"sent": 2}
        assert self.state(office, notice) == ("sent", None)
        [message] = office.mail.handler.taken
        assert message["Subject"] == "Bir başarıyı tamamladınız"
        body = message.get_body(("plain",))
        assert body is not None
        assert "24 Kasım 2026 tarihinde “\u2068Forty days of Fajr\u2069”" in body.get_content()
        pushed = browser.decrypt(office.push.pushed[0].body)
        assert pushed["body"] == "Başarılarınızdan birini tamamladınız."

    def test_by_email_where_there_is_no_reminder(self, office: PostOffice) -> None:
        notice = self.notice(office, office.person())
        assert self.notify(office, notice) == 1
        office.start(office.followers()[0][0])
        assert self.state(office, notice) == ("sent", None)

    def test_a_reminder_on_the_same_day_is_another_thing(self, office: PostOffice) -> None:
        user = office.person()
        reminder = office.delivery(user)
        office.run("UPDATE jobs.deliveries SET due_date = '2026-11-24'")
        office.run("UPDATE notifications SET channels = '{email}'")
        notice = self.notice(office, user)
        self.notify(office, notice)
        office.start(office.followers()[0][0])
        assert office.deliver(reminder) == {"sent": 1}
        assert len(office.mail.handler.taken) == 2

    def test_of_somebody_who_has_left(self, office: PostOffice) -> None:
        user = office.person(is_active=False)
        notice = self.notice(office, user)
        assert self.notify(office, notice) == 0
        assert self.state(office, notice) == ("missed", "the person has left")

    def test_one_whose_job_has_died_is_missed_when_it_is_no_news_any_more(self, office: PostOffice) -> None:
        old, new = (self.notice(office, office.person()) for _ in range(2))
        ago = "UPDATE jobs.notices SET created_at = now() - interval '24 hours' WHERE notice_id = :id"
        office.run(ago, id=old)
        office.run(ago.replace("24 hours", "23 hours"), id=new)
        with Session(office.worker) as session, session.begin():
            assert sending.sweep(session, now=now(), limit=100) == sending.Swept(0, 0, untold=1)
        assert self.state(office, old) == ("missed", "no job made deliveries of it in time")
        assert self.notify(office, old, new) == 1

    def test_how_it_ended_where_nothing_was_sent(self, office: PostOffice) -> None:
        user = office.person(email_verified=False)
        office.run(
            "INSERT INTO notifications (user_id, notification_time, timezone, channels)"
            " VALUES (:u, '07:00', 'UTC', '{email,webpush}')",
            u=user,
        )
        notice = self.notice(office, user)
        self.notify(office, notice)
        office.start(office.followers()[0][0])
        assert self.state(office, notice) == (
            "failed",
            "email: the address is not confirmed; webpush: the person has no address for webpush",
        )


def test_nothing_personal_in_logs_or_rows(office: PostOffice, mail: MailServer, push: PushServer) -> None:
    """Every way in which it can go wrong, with servers that repeat what they were told."""
    user = office.person(email="secret.person@example.org")
    office.browser(user, "/secret-endpoint")
    with capture_logs() as logs:
        for answer in (
            "550 5.7.1 <secret.person@example.org> blocked",
            "450 4.0.0 secret.person@example.org later",
            "550 5.1.1 Secret.Person unknown",
        ):
            mail.behaviour.rcpt_default = answer
            push.default = (403, {}) if answer.startswith("450") else (410 if "5.1.1" in answer else 400, {})
            office.run(
                "UPDATE jobs.deliveries SET due_date = due_date - 1, due_at = due_at - interval '1 day'"
            )
            office.deliver(office.delivery(user), office.delivery(user, "webpush"))
    rows = office.one("SELECT string_agg(d::text, E'\\n') FROM jobs.deliveries AS d")
    ledger = office.one("SELECT string_agg(j::text, E'\\n') FROM jobs.jobs AS j")
    suppressed = office.one("SELECT string_agg(reason, E'\\n') FROM suppressed_addresses")
    said = json.dumps(logs, default=str) + rows + ledger + suppressed
    assert "blocked" in said
    assert "secret" not in said.lower()
    assert "example.org" not in said
    assert "vapid" not in said.lower()
