"""Statements that are sent together, and answers that come later."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, text

from kitaab_jobs.runtime import trips


def test_more_than_the_network_takes_at_once(database: Engine) -> None:
    with database.connect() as connection:
        size = 20_000_000
        much = trips.filled(connection, "SELECT length({text})", text="x" * size)
        trips.send(connection, "SELECT 1", much, "SELECT 2")
        assert [answer.get_value(0, 0) for answer in trips.answers(connection)] == [b"1", b"%d" % size, b"2"]


def test_the_first_error_ends_the_rest_and_is_raised(database: Engine) -> None:
    with database.connect() as connection:
        trips.send(connection, "BEGIN", "SELECT 1 / 0", "COMMIT")
        with pytest.raises(psycopg.errors.DivisionByZero):
            trips.answers(connection)
        connection.invalidate()


def test_values_are_literals(database: Engine) -> None:
    odd = 'it\'s {odd} \\ %s "é"'
    with database.connect() as connection:
        trips.send(connection, trips.filled(connection, "SELECT {given}, {none}", given=odd, none=None))
        (answer,) = trips.answers(connection)
        assert answer.get_value(0, 0) == odd.encode()
        assert answer.get_value(0, 1) is None


def test_what_is_done_at_once_is_in_the_transaction(database: Engine) -> None:
    with database.connect() as connection:
        for _ in range(7):  # the driver prepares what comes often
            with connection.begin() as transaction:
                rows = trips.at_once(
                    connection,
                    "INSERT INTO jobs.timetables (edition) SELECT unnest(CAST(%(names)s AS text[])) RETURNING edition",
                    {"names": ["a", "b"]},
                )
                assert rows == [("a",), ("b",)]
                transaction.rollback()
        assert connection.scalar(text("SELECT count(*) FROM jobs.timetables")) == 0


def test_an_error_of_it_is_raised_and_can_be_rolled_back(database: Engine) -> None:
    with database.connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.begin():
            trips.at_once(connection, "SELECT 1 / %(none)s", {"none": 0})
        with connection.begin():
            assert trips.at_once(connection, "SELECT 1", {}) == [(1,)]
