"""Partitions: made ahead of time, so that no entry ever finds its day without one.

- What: `archive.make_partitions`.
- When: daily (beat_schedule.py); how far ahead and in what span: KITAAB_PARTITIONS_AHEAD_DAYS,
  KITAAB_PARTITION_BY.
- Reads: the catalog and jobs.partitioned_tables. Writes: new partitions, through jobs.make_partition.
- Alerts: `kitaab-jobs doctor` fails when a table has no partition for the days to come.
"""
