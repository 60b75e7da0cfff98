"""The timetable: what runs when, and why.

One line is one schedule. `cron` has five fields (minute hour day month weekday), or is "@daily" and the
like, or "every 30s"; `zone` is the IANA zone in which it is read. The jobs are those of contract.py.
Read at the start of beat.
"""

from kitaab_jobs import contract
from kitaab_jobs.runtime.timetable import Schedule

TIMETABLE = [
    # name                     job                                cron, zone and why
    Schedule("progress.refresh", contract.PROGRESS_REFRESH, cron="every 3s", note="an entry shows in its merit within seconds"),
    Schedule("progress.reconcile", contract.PROGRESS_RECONCILE, cron="30 3 * * *", note="nightly proof that nothing drifted"),
    Schedule("progress.purge_history", contract.PROGRESS_PURGE_HISTORY, cron="10 4 * * *", args={"limit": 5000}, note="charts go back two years"),
    Schedule("reminders.dispatch", contract.REMINDERS_DISPATCH, cron="* * * * *", note="reminders are due at full minutes"),
    Schedule("reminders.sweep", contract.REMINDERS_SWEEP, cron="* * * * *", note="nothing stays half sent: missed or unknown"),
    Schedule("reminders.reresolve", contract.REMINDERS_RERESOLVE, cron="*/10 * * * *", note="a new release of the zone data moves what is planned"),
    Schedule("archive.purge_jobs", contract.ARCHIVE_PURGE_JOBS, cron="*/10 * * * *", args={"limit": 5000}, note="the ledger stays small"),
    Schedule("archive.make_partitions", contract.ARCHIVE_MAKE_PARTITIONS, cron="15 0 * * *", note="partitions stand ready months ahead"),
]  # fmt: skip
