"""The embedded stack: PostgreSQL and Redis from pip-installed binaries, for machines that have none.

`Stack` runs both on a data folder; `EmbeddedPostgres` and `EmbeddedRedis` run one each, for tests.
The servers listen on the loopback only, want a password, run as an ordinary user even under root,
and never outlive the process that started them.
"""
