"""Imports: entries from a CSV file, such as a habit tracker's export.

- What: `jobs.run` checks each line of a file, says of each bad one where it stands and why, and writes
  the good ones in one transaction: all of them, or none where one is bad and the caller is strict.
- When: an operator types `kitaab-jobs import`. There is no schedule and no task.
- Reads: the file, users, deeds, deed_items, scales, scale_values, and the partitions of entries.
- Writes: entries. Triggers write their history and mark progress to be computed again.

An import adds and changes; it deletes nothing, and it makes no people, deeds, items or scale values: a
line that names one that does not exist is refused, with the nearest name that does. The same file once
more changes nothing. `docs/import.md` describes the format for whoever writes such a file.

Limits: a note has at most 10,000 characters and a record 50,000; a count has at most two decimals and
is at most 99,999,999.99; an entry's date is not in its person's future and lies in a partition of
entries. Memory does not grow with the file.

A line goes through `reader` (bytes to records), `layout` (which column is which), `rules` (what one
line says), `catalogue` (what its names stand for) and `jobs` (into the database, by `queries`).
"""
