"""Reminders: once for each person, local day and channel.

- What: `reminders.dispatch` records what is due and plans the next one; `reminders.deliver` sends;
  `reminders.notify` hands over what people completed; `reminders.sweep` ends what nobody sends any more;
  `reminders.reresolve` moves what is planned when the zone data change.
- When: dispatch and sweep every minute, reresolve every ten (beat_schedule.py); deliver follows, one job for each
  zone and chunk, in the queue `sending`.
- Reads: notifications, users, entries. Writes: notifications.next_due_*, last_due_* and before_edit, jobs.deliveries,
  jobs.zone_data, audit_log.
  Sending: reads users, push_subscriptions, channel_opt_outs, suppressed_addresses, jobs.notices; writes
  jobs.deliveries, jobs.notices, suppressed_addresses; removes subscriptions that are gone.
- Alerts: `kitaab-jobs doctor` names time zones that are stored and unknown; they count as UTC. In the log,
  `delivery_alert` (a provider says that we do it wrong) and `channel_stopped`.

The rules are in rules.py, and told with examples in docs/reminders.md. `sending` has how it is sent at most once,
`channels` the ways to people, and docs/channels.md all of that for operators.
"""
