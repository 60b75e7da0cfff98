"""`kitaab-jobs reminders send-test`: one message to one person, now, past the ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from kitaab_jobs.errors import ServerError, UsageError

SUMMARY = "Send one person a reminder now, over one channel, and say what the provider answered."


def register(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command("send-test", help=SUMMARY)(send_test)


def send_test(
    who: Annotated[str, typer.Argument(help="Their id or e-mail.", metavar="USER")],
    channel: Annotated[str, typer.Option("--channel", help="email, webpush or log.")] = "email",
) -> None:
    """Send it as a worker would, but for the pace and the ledger: no delivery is recorded, nobody is marked."""
    import datetime as dt
    from uuid import uuid4

    from sqlalchemy import text

    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.reminders import outgoing, readings, rules
    from kitaab_jobs.reminders.channels import CHANNELS
    from kitaab_jobs.reminders.channels.protocol import Fate, Letter
    from kitaab_jobs.settings import settings
    from kitaab_jobs.timing import local_date

    kind = CHANNELS.get(channel)
    if kind is None:
        raise UsageError(f"there is no channel {channel!r}", remedy=f"there are {', '.join(CHANNELS)}")
    now = dt.datetime.now(dt.UTC)
    with primary().connect() as connection:
        user = readings.find(connection, who)
        person = text("SELECT language, timezone FROM users WHERE user_id = :id")
        language, zone = connection.execute(person, {"id": user}).one()
        to = outgoing.addresses(connection, kind.addresses, [user]).get(user)
    if to is None:
        raise ServerError(f"person {user} has no address for {channel}")
    if to.get("refused"):
        raise ServerError(f"person {user} cannot be reached over {channel}: {to['refused']}")
    opened = kind.open(settings())
    try:
        letter = Letter(
            delivery_id=0,
            user_id=user,
            channel=channel,
            kind="reminder",
            key=str(uuid4()),
            collapse=f"test/{user}",
            language=language,
            day=local_date(now, rules.known(zone)),
            deadline=now + dt.timedelta(minutes=10),
            to=to,
        )
        result = opened.send(letter, now)
    finally:
        opened.close()
    if result.fate is not Fate.SENT:
        raise ServerError(f"not sent ({result.fate}): {result.reason}")
    typer.echo(
        f"sent to person {user} over {channel}" + (f": {result.provider_id}" if result.provider_id else "")
    )
