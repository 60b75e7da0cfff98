"""Health: what is configured, reachable, too old, missing or unsafe, and what to do about it.

- What: `jobs.examine` asks this machine, PostgreSQL and Redis, and returns a `Finding` for each check.
- When: an operator types `kitaab-jobs doctor`, or a monitor runs `kitaab-jobs doctor --json`.
- Reads: the environment and the installed packages; PostgreSQL's catalogs and settings, and of our
  tables jobs.kinds, jobs.processes, jobs.schedules, jobs.partitioned_tables and the zones that people have chosen;
  Redis's INFO and CONFIG.
- Writes: nothing, anywhere.
- Alerts: it is the alert. A check is `ok`, `warn`, `fail`, or `skip` where it could not be run.

Each server is asked in a thread of its own, and all of them together have `jobs.DEADLINE` seconds. A
server that cannot be reached, or that hangs, is one failed check; those that need it are skipped.

`checks` has the tables of checks: to add one, write its rule and add a line there. `rules` decides from
observed facts (`facts`) and does no I/O; its bounds are in `rules.limits`. `queries`, `redis`, `machine`
and `zones` observe, through what `sources` opens; `probes` runs the checks of one server within the
deadline, `addresses` puts servers and errors into words without a password, and `jobs` puts all together.
"""
