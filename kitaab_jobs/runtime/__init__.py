"""How jobs run: the row in `jobs.jobs` is the truth, and Celery carries the nudge.

| file | what it does |
|---|---|
| app | the Celery app and its settings, each with its reason |
| ledger | all SQL on jobs.jobs: publish, claim, finish, fail, heartbeat, rescue |
| execute | one delivered message: claim, run, finish in the job's own transaction |
| job | the decorator that makes a function a job |
| heartbeat | says that a running job still runs |
| relay | publishes ready rows to Celery, and rescues those whose message or worker was lost |
| timetable | what a line of beat_schedule.py is |
| fires | all SQL on jobs.schedules and jobs.fires |
| scheduler | the Celery beat scheduler over them |
| logs | one sentence and a stable action key for each line |
"""
