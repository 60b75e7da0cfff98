"""Progress: how far people are with their merits and targets.

- What: `progress.refresh` computes what was marked; `progress.reconcile` computes everything and
  repairs what differs.
- When: refresh every few seconds, reconcile every night (beat_schedule.py).
- Reads: entries, deed_items, merits, merit_items, targets, target_items, jobs.progress_marks.
- Writes: percent, is_satisfied, completed_on and completed_at of merits and targets; takes marks away.
- Alerts: reconcile reports each difference as a warning; there should be none.

The rules: a count item sums `count_value`, a scale item counts the entries that have its value; an
item counts its own entries and those of its descendants. A merit with a duration looks at any so
many consecutive days since its start, without one at all days; a target at its dates. AND needs every
item within the same window, OR any. Without items nothing is ever complete. Percent is the mean (AND)
or the best (OR) of min(1, done / goal) in the window that ends today, rounded down, and 100 exactly
when the goal was once complete.
"""
