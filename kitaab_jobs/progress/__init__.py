"""Progress: how far people are with their merits and targets.

- What: `progress.refresh` computes what was marked; `progress.reconcile` compares everything with the
  entries and repairs what differs.
- When: refresh every few seconds, reconcile every night (beat_schedule.py).
- Reads: entries, deed_items, users, merits, merit_items, targets, target_items, jobs.progress_marks.
- Writes: percent, is_satisfied, completed_on and completed_at of merits and targets; takes marks away. And what
  follows from a change: jobs.merit_history, jobs.target_history, jobs.notices with the job `reminders.notify`.
  `progress.purge_history` removes history that no chart of two years needs.
- Alerts: refresh reports how old its oldest mark was (`lag_seconds`), reconcile how many goals differed.
  A goal may differ because its marks still wait or because a day has begun for the person since it was
  computed: nothing marks a goal when a window slides or an entry's day comes. Anything else is a defect.

The rules.

A count item sums `count_value`, a scale item counts the entries that have its value. An item counts its
own entries and those of its descendants, each once, whatever is listed beside it; entries of items that
were deleted still count, and entries dated after the person's today do not, until their day.

A merit with a duration of N days is reached on a date d (today or before) when the entries of d and the
N-1 dates before it, none of them before `start_date`, bring its items to their goals: AND all of them
within that same window, OR any. A merit without a duration looks at all entries ever, whatever its
`start_date`. A target is reached on d when those from its start to d, at most to its end, do. Dates are
the person's own calendar, so a window across a clock change has as many days as any other. Without items
nothing is ever reached.

`completed_on` is the first such d that was seen, `completed_at` when it was seen. Both stay, whatever is
edited later. `is_satisfied` is what holds in the window that ends today (a target: in all its days so
far). `percent` is the mean (AND) or the best (OR) of min(1, done / goal) there, rounded down and at most
99, and 100 exactly when `completed_at` is set. Goals that are deleted, not active or frozen keep what
they showed.

A streak belongs to a deed item, not to a goal: it is the days in a row, on the person's calendar, on which the item or
one below it was recorded, whatever the value (a zero is a record; for a fault to be mended it is the good day). The
current one ends today or yesterday: today unrecorded does not break it, yesterday unrecorded does. Streaks are not
stored, since they change at midnight with no entry to mark them: `item_streaks()` computes them when asked.

History says what a goal showed at the end of each local day on which that changed. It is a record: a backdated entry
does not rewrite it. A completion is told once; one seen more than two days after it is recorded as missed.
"""
