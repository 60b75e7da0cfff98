"""The settings with which the embedded stack sends: to its own mail sink, with keys of its own."""

from __future__ import annotations

import sys
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kitaab_jobs.devstack.folder import Secrets
from kitaab_jobs.devstack.ports import HOST, free_port
from kitaab_jobs.devstack.supervisor import Process

SMTP_PORT, WEB_PORT = 1025, 8025


@dataclass(frozen=True, slots=True)
class MailSink:
    """Where the sink listens. Ports are chosen once, since everyone is told them."""

    smtp_port: int
    web_port: int

    @classmethod
    def choose(cls) -> MailSink:
        """Return the usual ports, or free ones where those are taken."""
        return cls(free_port(SMTP_PORT), free_port(WEB_PORT))

    @property
    def address(self) -> str:
        """The address of its pages, for a browser."""
        return f"http://{HOST}:{self.web_port}"

    @property
    def process(self) -> Process:
        """The process to run."""
        command = (
            sys.executable,
            "-m",
            "kitaab_jobs.devstack.mailsink",
            str(self.smtp_port),
            str(self.web_port),
        )
        return Process("mail", command, stop_within=5.0)

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the settings to send with. Their secrets are made once and kept in `folder`."""
        secrets = Secrets(folder / "mail.json")
        key = urlsafe_b64encode(sha256(secrets["vapid"].encode()).digest()).decode().rstrip("=")
        return {
            "KITAAB_SMTP_URL": f"smtp+plain://{HOST}:{self.smtp_port}",
            "KITAAB_MAIL_FROM": "Kitaab <reminders@kitaab.example>",
            "KITAAB_PUBLIC_URL": self.address,
            "KITAAB_UNSUBSCRIBE_SECRET": secrets["unsubscribe"],
            "KITAAB_VAPID_PRIVATE_KEY": key,
        }
