"""Reminders: once for each person, local day and channel.

- What: `reminders.dispatch` records what is due and plans the next one; `reminders.deliver` sends;
  `reminders.reresolve` moves what is planned when the zone data change.
- When: dispatch every minute, reresolve every ten (beat_schedule.py); deliver follows, one job for each zone and chunk.
- Reads: notifications, users, entries. Writes: notifications.next_due_*, last_due_* and before_edit, jobs.deliveries,
  jobs.zone_data, audit_log.
- Alerts: `kitaab-jobs doctor` names time zones that are stored and unknown; they count as UTC.

The rules are in rules.py, and told with examples in docs/reminders.md. The only channel so far is `log`: a line in the
worker's log.
"""
