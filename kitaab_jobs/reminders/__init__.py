"""Reminders: once for each person, local day and channel.

- What: `reminders.dispatch` records what is due and plans the next one; `reminders.deliver` sends.
- When: dispatch every minute (beat_schedule.py); deliver follows, one job for each zone and chunk.
- Reads: notifications, users. Writes: notifications.next_due_* and last_due_*, jobs.deliveries,
  audit_log.
- Alerts: `kitaab-jobs doctor` names time zones that are stored and unknown; they count as UTC.

A reminder that is found late is still sent for two hours, within its local day; after that it is
recorded as missed. The only channel so far is `log`: a line in the worker's log.
"""
