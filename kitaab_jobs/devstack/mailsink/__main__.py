"""python -m kitaab_jobs.devstack.mailsink SMTP_PORT WEB_PORT: run the sink until it is told to end."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import sys
import threading

from aiosmtpd.smtp import SMTP, Envelope, Session

from kitaab_jobs.db.engines import owner
from kitaab_jobs.devstack.mailsink.store import MAX_BYTES, Store
from kitaab_jobs.devstack.mailsink.web import server
from kitaab_jobs.devstack.ports import HOST
from kitaab_jobs.reminders.unsubscribe import unsubscribe
from kitaab_jobs.settings import settings


class Keeper:
    """What the SMTP server does with an e-mail."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep it."""
        content = envelope.content
        source = content.encode() if isinstance(content, str) else content or b""
        mail = self._store.add(source, envelope.rcpt_tos, dt.datetime.now(dt.UTC))
        return f"250 2.0.0 kept as {mail.number}"


def apply(token: str) -> str:
    """Unsubscribe as an app would; the stack's owner stands in for kitaab_app."""
    config = settings()
    engine = owner(config, "kitaab-jobs mail sink")
    with engine.begin() as connection:
        done = unsubscribe(connection, token, config)
    return f"Person {done.user_id} gets no more {done.kind}s by {done.channel}."


async def run(smtp_port: int, web_port: int) -> None:
    """Listen on both ports until SIGTERM or SIGINT."""
    store = Store()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    keeper = Keeper(store)
    smtp = await loop.create_server(
        lambda: SMTP(
            keeper, data_size_limit=MAX_BYTES, hostname="localhost", enable_SMTPUTF8=True, loop=loop
        ),
        HOST,
        smtp_port,
    )
    # Last: whoever sees the page can send as well.
    pages = server(web_port, HOST, store, apply)
    threading.Thread(target=pages.serve_forever, name="web", daemon=True).start()
    await ended.wait()
    smtp.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2])))
