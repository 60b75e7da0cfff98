"""Addresses without their passwords, and what to do when nobody answers there."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import parse_qs, quote, unquote, urlsplit

# Not by codes: a connection that fails before it is made has none.
REMEDIES = (
    (r"password authentication failed|no password supplied|WRONGPASS|invalid (username|password)|NOAUTH"
     r"|[Aa]uthentication required|without any password configured", "correct the user and the password in {name}"),
    (r"role .* does not exist", "create the role, or correct the user in {name}"),
    (r"is not permitted to log in", "ALTER ROLE ... LOGIN PASSWORD '...', or correct the user in {name}"),
    (r"database .* does not exist", "create the database ('kitaab-jobs migrate' fills it), or correct {name}"),
    (r"no pg_hba.conf entry|pg_hba.conf rejects", "allow this machine and user in the server's pg_hba.conf"),
    (r"too many clients|too many connections|remaining connection slots|max number of clients",
     "close some clients, raise the server's limit, or lower KITAAB_POOL_MAX"),
    (r"starting up|shutting down|in recovery|LOADING", "wait a moment, and look again"),
    (r"startup parameter", "set ignore_startup_parameters = options in the pooler, and our limits with ALTER ROLE ... SET"),
    (r"SSL|TLS|certificate", "correct the TLS settings in {name}, or the server's certificate"),
    (r"resolve|translate host|[Nn]ame or service not known|nodename", "correct the host in {name}"),
    (r"DB index|out of range", "correct the number of the database in {name}"),
    (r"[Rr]efused|No such file", "start the server, or correct {name}"),
    (r"does not answer|timeout|timed out|[Tt]imeout", "see whether the server hangs, and whether a firewall is in the way"),
)  # fmt: skip
OTHERWISE = "correct {name}, and see the server's log"
STACK_REMEDY = "start it with 'kitaab-jobs up' (its address is from {name})"


def shown(url: str) -> str:
    """Return user, host and path of a URL. What stands after `?` is left out, for it may be a password."""
    try:
        parts = urlsplit(url)
        user = f"{unquote(parts.username)}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.partition("://")[0] + "://..."
    host = parts.hostname or (parse_qs(parts.query).get("host") or [""])[0]
    return f"{parts.scheme.partition('+')[0]}://{user}{host}{port}{parts.path}"


def server_of(url: str) -> str:
    """Return what is the same in the addresses of one server: host and port."""
    address = shown(url)
    return address.partition("://")[2].rpartition("@")[2].partition("/")[0] or address


def is_local(host: str | None) -> bool:
    """Whether packets to that host, or path of a unix socket, stay on this machine."""
    if not host or host == "localhost" or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def reason(error: Exception, url: str) -> str:
    """Return what an error says in one line, without what drivers put around it and without the password."""
    told = getattr(error, "orig", None) or error
    lines = str(told).strip().splitlines() or [type(told).__name__]
    text = lines[0] if len(lines[0]) > 40 or len(lines) == 1 else " ".join(lines[:3])
    text = re.sub(r"^(connection failed: )?(connection to server[^:]*failed: )?((FATAL|ERROR): +)?", "", text)
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return " ".join(text.split())[:300]


def remedy(why: str, name: str, *, embedded: bool = False) -> str:
    """Return what to do about a server that cannot be used; `embedded`: its address is from stack.env."""
    for pattern, advice in REMEDIES:
        if re.search(pattern, why):
            refused = embedded and "start the server" in advice
            return (STACK_REMEDY if refused else advice).format(name=name)
    return OTHERWISE.format(name=name)


def _secrets(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        given = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    except ValueError:
        return []
    forms = {form for text in given if text for form in (text, unquote(text), quote(text, safe=""))}
    return sorted(forms, key=len, reverse=True)
