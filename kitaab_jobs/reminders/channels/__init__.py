"""The ways to people: one protocol (protocol.py), one table.

A channel more is a file with a `KIND` (how it is opened, where its addresses are, what its answers say about them)
and a line below. `notifications.channels` and `jobs.deliveries.channel` hold the names.

- `email`: SMTP; smtp.py holds the dialogue, wording.py and templates/ the words.
- `webpush`: push services of browsers, encrypted, signed with VAPID.
- `log`: a line in the worker's log.

replies.py says what a provider's answer means, pace.py how fast all workers together may go.
"""

from kitaab_jobs.reminders.channels import email, log, webpush
from kitaab_jobs.reminders.channels.protocol import Kind

CHANNELS: dict[str, Kind] = {
    "email": email.KIND,
    "webpush": webpush.KIND,
    "log": log.KIND,
}
