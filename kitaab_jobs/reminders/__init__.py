"""Reminders: once for each person, local day and channel.

- What: `reminders.dispatch` records what is due and plans the next one; `reminders.deliver` sends.
- When: dispatch every minute (beat_schedule.py); deliver follows, one job for each zone and chunk.
- Reads: notifications, users. Writes: notifications.next_due_* and last_due_*, jobs.deliveries,
  audit_log.
  Sending: reads users, push_subscriptions, channel_opt_outs, suppressed_addresses, jobs.notices; writes
  jobs.deliveries, jobs.notices, suppressed_addresses; removes subscriptions that are gone.
- Alerts: `kitaab-jobs doctor` names time zones that are stored and unknown; they count as UTC. In the log,
  `delivery_alert` (a provider says that we do it wrong) and `channel_stopped`.

A reminder that is found late is still sent for two hours, within its local day; after that it is
recorded as missed. `sending` has how it is sent at most once, `channels` the ways to people, and
docs/channels.md all of it for operators.
"""
