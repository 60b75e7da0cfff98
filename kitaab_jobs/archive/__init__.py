"""What is old goes, and what is new has its place: partitions made ahead, rows of ended jobs removed.

- What: `archive.make_partitions`, so that no entry ever finds its day without a partition;
  `archive.purge_jobs`, so that the ledger stays small.
- When: beat_schedule.py. How far ahead and in what span: KITAAB_PARTITIONS_AHEAD_DAYS, KITAAB_PARTITION_BY. How
  long rows stay: KITAAB_KEEP_JOBS_DAYS, KITAAB_KEEP_DEAD_JOBS_DAYS, KITAAB_KEEP_FIRES_DAYS.
- Reads: the catalog and jobs.partitioned_tables. Writes: new partitions, through jobs.make_partition; removes rows of
  jobs.jobs, jobs.fires and jobs.processes, in batches.
- Alerts: `kitaab-jobs doctor` fails when a table has no partition for the days to come.
"""
