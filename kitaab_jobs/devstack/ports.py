"""Free loopback ports."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from kitaab_jobs.errors import StackError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of an earlier server that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` where it is free, else a random free port.

    Ports that the system hands to outgoing connections are avoided: a client that keeps trying to
    reach a dead server on such a port can be connected to itself, and then the port stays taken.
    """
    if preferred is not None and is_free(preferred):
        return preferred
    top = _first_outgoing_port()
    low = 10_000 if top > 12_000 else 1024
    for port in random.sample(range(low, top), k=min(200, top - low)):
        if is_free(port):
            return port
    raise StackError(f"no free port on {HOST} between {low} and {top}", remedy="stop some servers")


def _first_outgoing_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return first if first > 2048 else 32_768
