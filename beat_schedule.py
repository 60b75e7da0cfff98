"""The timetable: what runs when, and why. One line is one schedule; nothing else decides when a job runs by itself.

    cron   five fields: minute, hour, day of month, month, day of week. A zone may be its last word:
           "0 21 * * * Asia/Karachi". Or "@daily" and the like, or "every 30s".
    note   why it runs, for whoever reads the list of schedules.

A line may say more: zone="Asia/Karachi", args={"limit": 5000}, catch_up="all", catch_up_window="3h", overlap="queue",
jitter="5m", starts_at="2026-12-01 09:00", ends_at=..., dst="literal", pause_after_failures=3. docs/schedules.md says
what each of them does. Where a line says nothing: UTC; after a time without beat the latest fire runs; a fire is left out
while the run before it is not over.

beat reads this file when it starts, and refuses one with a mistake, by the line's name. Times are in UTC.
"""

from kitaab_jobs import contract
from kitaab_jobs.runtime.timetable import Schedule

TIMETABLE = [
    # what people wait for
    Schedule("progress.refresh",        contract.PROGRESS_REFRESH,        cron="every 3s",     note="an entry shows in its merit within seconds"),
    Schedule("reminders.dispatch",      contract.REMINDERS_DISPATCH,      cron="* * * * *",    note="reminders are due at full minutes"),
    Schedule("reminders.sweep",         contract.REMINDERS_SWEEP,         cron="* * * * *",    note="nothing stays half sent: missed or unknown"),
    # every hour or more often
    Schedule("reminders.reresolve",     contract.REMINDERS_RERESOLVE,     cron="*/10 * * * *", note="a new release of the zone data moves what is planned"),
    Schedule("archive.purge_jobs",      contract.ARCHIVE_PURGE_JOBS,      cron="*/10 * * * *", note="the ledger stays small", args={"limit": 5000}),
    # every night
    Schedule("archive.make_partitions", contract.ARCHIVE_MAKE_PARTITIONS, cron="15 0 * * *",   note="partitions stand ready months ahead"),
    Schedule("progress.reconcile",      contract.PROGRESS_RECONCILE,      cron="30 3 * * *",   note="nightly proof that nothing drifted"),
    Schedule("progress.purge_history",  contract.PROGRESS_PURGE_HISTORY,  cron="10 4 * * *",   note="charts go back two years", args={"limit": 5000}),
    # every week and every month: nothing yet
]  # fmt: skip
