"""How jobs run: the row in `jobs.jobs` is the truth, and Celery carries the nudge.

| file | what it does |
|---|---|
| app | the Celery app and its settings, each with its reason |
| broker | kombu's Redis transport, mended |
| outbox | SQL of the relay: what is due, what may go out, what was lost on the way |
| messages | which jobs travel in one message |
| relay | publishes ready rows to Celery, and rescues those whose message or worker was lost |
| job | the decorator that makes a function a job |
| execute | one job from its message: claimed, or dropped |
| attempt | a claimed job, run in a transaction of its own and ended with it |
| batch | many small jobs from one message, savepoints between them, all in one commit |
| ledger | SQL of the worker: start, heartbeat, end |
| arrival | the same for a plain Celery message, which has no row yet |
| trips | statements that go to the server together, answers that are fetched later |
| envelope | a Celery message on Redis, packed by hand |
| events | what Flower is told, gathered, and only where somebody listens |
| outcome | what follows from how an attempt ended: the one place where errors are weighed |
| context | what a job may know of itself |
| heartbeat | says what a worker process still runs, and brings back who is to stop |
| canvas | what Celery's chains and chords hang on a message |
| operators | what `kitaab-jobs jobs` shows |
| changes | what it changes: replay, cancel, purge |
| tail | jobs as they end |
| timetable | what a line of beat_schedule.py is |
| policies | what becomes of planned fires that are late, or come too soon: the decisions |
| roster | the rows of jobs.schedules, and the file brought into them |
| editions | which timetable counts where beats bring several |
| fires | what a beat does when fires are due |
| fire_records | what it writes of them: jobs and rows of jobs.fires |
| endings | how the runs of fires ended, and the pause after failures |
| schedules | what operators do with schedules |
| backfills | planned fires of the past that are run afterwards |
| scheduler | the Celery beat scheduler over them |
| liveness | whether any beat is at work |
| logs | one sentence and a stable action key for each line |
"""
