"""The mail sink: what comes in is shown, what it brings along runs nothing, and its links work."""

from __future__ import annotations

import datetime as dt
import os
import smtplib
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from kitaab_jobs.devstack.mail import MailSink
from kitaab_jobs.devstack.mailsink.store import Store
from kitaab_jobs.devstack.mailsink.web import server
from kitaab_jobs.devstack.ports import free_port
from kitaab_jobs.errors import UsageError
from kitaab_jobs.reminders.unsubscribe import token
from tests.devstack.observe import wait_for

NOW = dt.datetime(2026, 11, 25, 6, 0, tzinfo=dt.UTC)
EVIL = '<p onclick="x()">hi</p><script>alert(1)</script>'


def mail(subject: str = "Your Kitaab", html: str = "<p>hello</p>") -> bytes:
    message = EmailMessage()
    message["From"] = "reminders@kitaab.example"
    message["To"] = "amina@example.org"
    message["Subject"] = subject
    message.set_content("hello in plain")
    message.add_alternative(html, subtype="html")
    return message.as_bytes()


class Pages:
    """The pages of a store, and the tokens that were applied."""

    def __init__(self) -> None:
        self.store = Store(kept=3)
        self.applied: list[str] = []
        self._server = server(0, "127.0.0.1", self.store, self._unsubscribe)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _unsubscribe(self, token: str) -> str:
        if token != "good":
            raise UsageError("the link is not one of ours")
        self.applied.append(token)
        return "Done <b>."

    def get(self, path: str, data: bytes | None = None, host: str | None = None) -> tuple[int, str, str]:
        """Return the status, the page, and its policy."""
        headers = {"Host": host} if host else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode(), answer.headers["Content-Security-Policy"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers["Content-Security-Policy"] or ""

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.stop()


def test_none_yet(pages: Pages) -> None:
    assert "None yet" in pages.get("/")[1]


def test_listed_the_newest_first_and_the_oldest_forgotten(pages: Pages) -> None:
    for number in range(5):
        pages.store.add(mail(f"mail {number}"), ["amina@example.org"], NOW)
    text = pages.get("/")[1]
    assert [text.find(f"mail {number}") > 0 for number in range(5)] == [False, False, True, True, True]
    assert text.find("mail 4") < text.find("mail 3")
    assert "5 so far, the last 3 are kept" in text
    assert pages.get("/mail/1")[0] == 404
    assert pages.get("/mail/5")[0] == 200


def test_both_parts_and_headers(pages: Pages) -> None:
    number = pages.store.add(mail("كتابك ليوم"), ["amina@example.org"], NOW).number
    text = pages.get(f"/mail/{number}")[1]
    assert "hello in plain" in text
    assert "كتابك ليوم" in text
    assert f'<iframe sandbox src="/mail/{number}/html"' in text
    assert pages.get(f"/mail/{number}/html")[1].strip() == "<p>hello</p>"
    assert "Subject: =?utf-8?" in pages.get(f"/mail/{number}/source")[1]


def test_nothing_of_an_email_runs(pages: Pages) -> None:
    number = pages.store.add(mail(EVIL, EVIL), ['"<script>"@example.org'], NOW).number
    for path in ("/", f"/mail/{number}"):
        _, text, policy = pages.get(path)
        assert "<script" not in text
        assert "default-src 'none'" in policy
    _, text, policy = pages.get(f"/mail/{number}/html")
    assert "<script>" in text
    assert policy.startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize("path", ["/mail/x", "/mail/0", "/mail/1/else", "/nothing", "/mail/٣"])
def test_not_here(pages: Pages, path: str) -> None:
    from urllib.parse import quote

    assert pages.get(quote(path))[0] == 404


def test_a_name_of_somebody_else_that_leads_here(pages: Pages) -> None:
    pages.store.add(mail("private"), ["amina@example.org"], NOW)
    status, text, _ = pages.get("/", host="evil.example:8025")
    assert (status, "private" in text) == (421, False)


def test_opening_the_link_does_not_unsubscribe_and_the_button_does(pages: Pages) -> None:
    status, text, _ = pages.get("/unsubscribe?token=good")
    assert (status, pages.applied) == (200, [])
    assert 'name="token" value="good"' in text
    assert "Done &lt;b&gt;." in pages.get("/unsubscribe", data=b"token=good")[1]
    assert pages.applied == ["good"]


def test_one_click_as_mail_programs_do_it(pages: Pages) -> None:
    assert pages.get("/unsubscribe?token=good", data=b"List-Unsubscribe=One-Click")[0] == 200
    assert pages.applied == ["good"]
    status, text, _ = pages.get("/unsubscribe?token=bad", data=b"List-Unsubscribe=One-Click")
    assert (status, "not one of ours" in text) == (400, True)


def test_the_process_as_the_stack_runs_it(
    database: Engine, url_for: Callable[[str, str], str], tmp_path: Path
) -> None:
    """An e-mail by SMTP is on the page, a link of it unsubscribes in the database, and SIGTERM ends it."""
    with database.begin() as connection:
        person = "INSERT INTO users (email, password_hash, full_name) VALUES ('a@example.org', 'x', 'A') RETURNING user_id"
        user = connection.scalar(text(person))
    assert user is not None
    assert database.url.database is not None
    sink = MailSink(free_port(), free_port())
    variables = sink.variables(tmp_path)
    assert variables == sink.variables(tmp_path), "secrets are made once"
    variables["KITAAB_ADMIN_URL"] = url_for("kitaab_admin", database.url.database)
    variables["KITAAB_DATABASE_URL"] = url_for("kitaab_worker", database.url.database)
    process = subprocess.Popen(
        sink.process.command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _answers(sink.address), seconds=30)
        with smtplib.SMTP("127.0.0.1", sink.smtp_port, timeout=10) as client:
            client.sendmail("reminders@kitaab.example", ["a@example.org"], mail("over SMTP"))
        with urllib.request.urlopen(sink.address, timeout=10) as answer:
            assert "over SMTP" in answer.read().decode()
        good = token(user, "email", "reminder", variables["KITAAB_UNSUBSCRIBE_SECRET"])
        link = f"{sink.address}/unsubscribe?token={good}"
        with urllib.request.urlopen(link, data=b"List-Unsubscribe=One-Click", timeout=10) as answer:
            assert f"Person {user} gets no more reminders by email." in answer.read().decode()
        with database.connect() as connection:
            rows = connection.execute(text("SELECT user_id, channel, kind FROM channel_opt_outs")).all()
        assert [tuple(row) for row in rows] == [(user, "email", "reminder")]
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False
