"""The advisory locks: every number in one place, so that no two things take the same by accident.

SQL in the migrations uses two more spaces: `hashtextextended(name || '/' || key, 7)` for a unique key with a period.
"""

MIGRATE = 5_472_001  # one migrator at a time
LOAD_SAMPLE = 5_472_002  # one load of sample data at a time in a database
MAKE_PARTITIONS = 5_472_003  # two would both find the same partition missing
COUNT_LIMITS = 5_472_004  # of two relays one decides about what has a limit
SYNC_TIMETABLE = 5_472_011  # of several beats that start together, one writes what the file says
