"""The broker: can it lose messages, refuse them, or be read by anyone?"""

from __future__ import annotations

from kitaab_jobs.health.facts import RedisDoor, RedisServer
from kitaab_jobs.health.rules.finding import OK, Verdict, fail, ok, skip, warn
from kitaab_jobs.health.rules.limits import OLDEST_REDIS, RECOMMENDED_REDIS, REDIS_MEMORY_SHARE

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def version(server: RedisServer) -> Verdict:
    """Is the server recent enough? Valkey tells which Redis it is compatible with."""
    name = f"{server.name} {server.version}"
    numbers = tuple(int(part) for part in server.compatible.split(".")[:2] if part.isdigit())
    advice = f"Redis {_dotted(RECOMMENDED_REDIS)} or later, or Valkey 8 or later"
    if numbers < OLDEST_REDIS:
        return fail(f"{name} is too old", f"upgrade to {_dotted(OLDEST_REDIS)} at least; best is {advice}")
    return ok(name if numbers >= RECOMMENDED_REDIS else f"{name} ({advice} is recommended)")


def role(server: RedisServer) -> Verdict:
    """Does it take writes?"""
    if server.cluster:
        return fail("it is a Redis Cluster, which Celery cannot use", "use one server, or Sentinel")
    if server.role != "master":
        return fail("it is a replica, which refuses writes", "set KITAAB_REDIS_URL to the master")
    return ok("it takes writes")


def eviction(server: RedisServer) -> Verdict:
    """Does it keep every key when memory is short?"""
    if not server.policy:
        return skip("the server does not say its maxmemory-policy")
    if server.policy != "noeviction":
        return fail(
            f"maxmemory-policy is {server.policy}: when memory is short, messages are thrown away",
            "CONFIG SET maxmemory-policy noeviction, and set it in redis.conf",
        )
    return ok("maxmemory-policy is noeviction")


def append_only(server: RedisServer) -> Verdict:
    """Does it remember its messages over a restart?"""
    if not server.append_only:
        return fail(
            "appendonly is no: a restart forgets the queues, and jobs wait until they are rescued",
            "CONFIG SET appendonly yes, and set it in redis.conf",
        )
    return ok("appendonly is yes")


def writes_to_disk(server: RedisServer) -> Verdict:
    """Did the last write to disk succeed?"""
    if not server.last_write_ok:
        return fail("the last write to disk failed", "see the server's log, and whether its disk is full")
    return ok("the last write to disk succeeded")


def memory(server: RedisServer) -> Verdict:
    """Is there room? Without eviction, a full server refuses messages."""
    used = f"{server.memory_used / 2**20:.1f} MiB used"
    if not server.memory_limit:
        return ok(f"{used}, no limit is set")
    share = server.memory_used / server.memory_limit
    text = f"{used}, {share:.0%} of maxmemory"
    level = REDIS_MEMORY_SHARE.level(share)
    if level == OK:
        return ok(text)
    return Verdict(level, f"{text}; at 100% it refuses messages", "raise maxmemory, or see which queue grows")


def password(door: RedisDoor) -> Verdict:
    """Does a stranger get in?"""
    if not door.open_to_all:
        return ok("it asks for a password")
    remedy = "set requirepass, or an ACL, and put the password into KITAAB_REDIS_URL"
    if door.config is None:
        if door.local:
            return warn("it asks for no password, and where it listens could not be read", remedy)
        return fail("it asks for no password, and can be reached over the network", remedy)
    if _only_loopback(door.config):
        return ok("it asks for no password, and listens on this machine only")
    if door.local and door.config.get("protected-mode") == "yes":
        return warn("it asks for no password; only protected-mode keeps other machines out", remedy)
    return fail("it asks for no password, and listens to other machines", remedy)


def protected_mode(door: RedisDoor) -> Verdict:
    """Would it close itself if its password were ever lost?"""
    if door.config is None:
        return skip(f"CONFIG cannot be used ({door.refused})")
    if "protected-mode" not in door.config:
        return skip("the server does not say")
    if door.config["protected-mode"] != "yes":
        return warn(
            "protected-mode is off: without a password, anyone who reaches it may do everything",
            "CONFIG SET protected-mode yes, and set it in redis.conf",
        )
    return ok("protected-mode is on")


def _only_loopback(config: dict[str, str]) -> bool:
    if config.get("port") == "0" and config.get("tls-port", "0") == "0":
        return True  # a unix socket alone
    names = {name.removeprefix("-") for name in config.get("bind", "").split()}
    return bool(names) and names <= _LOOPBACK
