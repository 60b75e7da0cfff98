"""Progress: how far people are with their merits and targets.

- What: `progress.refresh` computes what was marked; `progress.reconcile` compares everything with the
  entries and marks what differs.
- When: refresh every few seconds, reconcile every night (beat_schedule.py).
- Reads: entries, deed_items, users, merits, merit_items, targets, target_items, jobs.progress_marks.
- Writes: percent, is_satisfied, completed_on, completed_at and as_of of merits and targets, frozen_at of targets;
  takes marks away. And what follows from a change: jobs.merit_history, jobs.target_history, jobs.notices with
  the job `reminders.notify`. `progress.purge_history` removes history that no chart of two years needs.
- Marks come from triggers: entries that are written, edited, deleted or imported (since their day), items that move or
  are removed, goals and their items that change, scale values that change, and people who change their zone. Whoever
  detaches a partition of entries marks what was in it: jobs.mark_items_of.
- Waits: for nobody. A goal that somebody holds (who edits it, deletes it, or just computes it) is marked again, and
  computed by the next refresh. Marks of reconcile and of detached partitions are taken when no others are there.
- Alerts: refresh reports how old its oldest mark was that somebody waits for (`lag_seconds`) and how many goals it left
  (`postponed`), reconcile how many goals differed and why. Marks that still wait, goals that were never computed, days
  that began and windows that slid since `as_of` are no defects: nothing marks a goal when a day begins. Anything else is
  one, and is logged as an error.

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

An item that asks for "at most" is judged when a window is over: the whole window, of which the last day
is yesterday or before, with something recorded on each of its days (for the item or below it, whatever it was) and no
more than the goal in all of them. A day that was not recorded is not a success; a window that the merit's
start cuts off is not whole; and a merit without a duration never ends, so its "at most" is never reached. It may ask
for at most nothing. AND with such an item looks at windows that are over, for all of its items.

`completed_on` is the first such d that was seen, `completed_at` when it was seen. Both stay, whatever is
edited later. `is_satisfied` is what holds in the window that ends today (a target: in all its days so
far), or yesterday where it has to be over. `percent` is the mean (AND) or the best (OR) of min(1, done / goal) there,
rounded down and at most 99, and 100 exactly when `completed_at` is set. Of "at most" it is the part of the
window's days that were recorded, and nothing once there was too much. `as_of` is the person's date that this holds for.

A target is live until two of the person's days after its end are over. Then it is computed a last time, and freezes
(`frozen_at`) until somebody moves its end. Goals that are deleted, not active or frozen keep what they showed.

A streak belongs to a deed item, not to a goal: it is the days in a row, on the person's calendar, on which the item or
one below it was recorded, whatever the value (a zero is a record; for a fault to be mended it is the good day). The
current one ends today or yesterday: today unrecorded does not break it, yesterday unrecorded does. Streaks are not
stored, since they change at midnight with no entry to mark them: `item_streaks()` computes them when asked.

History says what a goal showed at the end of each local day on which that changed. It is a record: a backdated entry
does not rewrite it. A completion is told once; one seen more than two days after it is recorded as missed.
"""
