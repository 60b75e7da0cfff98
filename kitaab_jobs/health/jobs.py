"""Ask this machine and every server that is set, all at once, and put the verdicts in order."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from kitaab_jobs.db.retries import is_connection_loss
from kitaab_jobs.errors import KitaabError, SettingsError
from kitaab_jobs.health import checks, sources
from kitaab_jobs.health.addresses import reason, remedy, server_of, shown
from kitaab_jobs.health.probes import Check, Probe, run
from kitaab_jobs.health.rules import AREAS, Finding, Verdict, fail, ok, skip
from kitaab_jobs.health.sources import Clock, Machine
from kitaab_jobs.settings import Settings

# In seconds, for all probes together.
DEADLINE = 12.0


class Target(NamedTuple):
    """A server to ask. `url` is None where it is needed and not set."""

    check: str
    subject: str
    variable: str
    url: str | None
    probe: Probe[Any]


def examine(
    settings: Settings | SettingsError,
    *,
    now: dt.datetime,
    environ: Mapping[str, str] | None = None,
    deadline: float = DEADLINE,
) -> list[Finding]:
    """Return a finding for each check, in the order of `rules.AREAS`. It raises nothing and writes nothing.

    `settings` may be the error that reading them gave. `now` is what this machine takes the time to be
    (aware): servers' clocks are compared with it. It ends within about `deadline` seconds, whatever hangs.
    """
    given = os.environ if environ is None else environ
    local = _local(settings, Machine(given, now))
    targets = [] if isinstance(settings, SettingsError) else _targets(settings, sources.clock_from(now))
    run([local, *(target.probe for target in targets)], deadline)
    findings = [
        *(_without_settings(settings) if isinstance(settings, SettingsError) else [_with_settings(settings)]),
        *local.complete(),
        *_reached(targets, given),
        *(finding for target in targets for finding in target.probe.complete()),
    ]
    return sorted(findings, key=lambda finding: list(AREAS).index(finding.area))


def _local(settings: Settings | SettingsError, machine: Machine) -> Probe[Machine]:
    there: list[Check[Machine]] = [*checks.packages(), *checks.MACHINE]
    if not isinstance(settings, SettingsError):
        there += checks.configured(settings)
    return Probe("this machine", lambda: nullcontext(machine), there, lost=lambda _: False, reason=str)


def _with_settings(settings: Settings) -> Finding:
    return Finding.of(
        "settings.readable", ok(f"settings are read, and the data folder is {settings.data_dir}")
    )


def _without_settings(error: SettingsError) -> list[Finding]:
    """Say why the settings cannot be read, and that nothing which needs them was tried."""
    needing = [check.name for check in checks.DATABASE] + [check.name for check in checks.REDIS]
    return [
        Finding.of("settings.readable", fail(error.message, error.remedy or "correct it, or unset it")),
        *(Finding.of(name, skip("the settings cannot be read")) for name in needing),
    ]


def _targets(settings: Settings, clock: Clock) -> list[Target]:
    """Return the servers that are set, and the two that are needed."""

    def postgres(name: str, variable: str, url: Callable[[], str], there: Sequence[Check[Any]]) -> Target:
        return _target(
            f"postgres.reachable.{name}",
            "PostgreSQL",
            variable,
            url,
            lambda: sources.database(settings, url(), clock),
            there,
        )

    found = [
        postgres(
            "database",
            "KITAAB_DATABASE_URL",
            lambda: settings.database,
            checks.database_checks(settings),
        ),
        _target(
            "redis.reachable",
            "Redis",
            "KITAAB_REDIS_URL",
            lambda: settings.redis,
            lambda: sources.redis_server(settings.redis, clock),
            checks.REDIS,
        ),
    ]
    others = {
        "direct": (settings.direct_url, checks.DIRECT),
        "admin": (settings.admin_url, checks.ADMIN),
        "replica": (settings.replica_url, checks.REPLICA),
    }
    for name, (secret, there) in others.items():
        if secret is not None:
            found.append(postgres(name, f"KITAAB_{name.upper()}_URL", secret.get_secret_value, there))
    return found


def _target(
    check: str,
    subject: str,
    variable: str,
    url: Callable[[], str],
    opened: Callable[[], AbstractContextManager[Any]],
    there: Sequence[Check[Any]],
) -> Target:
    try:
        address = url()
    except SettingsError:
        address = None
    lost = sources.is_redis_loss if subject == "Redis" else is_connection_loss
    probe: Probe[Any] = Probe(
        subject, opened, there, lost=lost, reason=lambda error: reason(error, address or "")
    )
    return Target(check, subject, variable, address, probe)


def _reached(targets: Sequence[Target], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether each address can be used. What is wrong with one server is told once."""
    told: dict[tuple[str, str], str] = {}
    for target in targets:
        why = target.probe.failure
        if why is None:
            yield Finding.of(target.check, ok(f"{target.variable}: {shown(target.url or '')} answers"))
            continue
        same = (server_of(target.url or target.variable), why)
        if same in told:
            yield Finding.of(target.check, skip(f"the same as {told[same]}"))
        else:
            told[same] = target.check
            yield Finding.of(target.check, _unreachable(target, why, targets, environ))


def _unreachable(target: Target, why: str, targets: Sequence[Target], environ: Mapping[str, str]) -> Verdict:
    error = target.probe.error
    if isinstance(error, KitaabError):
        return fail(error.message, error.remedy or f"correct {target.variable}")
    url = target.url or ""
    names = [
        t.variable for t in targets if t.probe.failure == why and server_of(t.url or "") == server_of(url)
    ]
    embedded = target.variable not in environ
    state = "was lost" if target.probe.opened else "cannot be used"
    return fail(
        f"{target.subject} at {shown(url)} ({', '.join(names)}) {state}: {why}",
        remedy(why, target.variable, embedded=embedded),
    )
