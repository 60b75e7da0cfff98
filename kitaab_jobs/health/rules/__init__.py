"""From observed facts to verdicts: one small function for each check, and no I/O."""

from __future__ import annotations

from kitaab_jobs.health.rules.finding import (
    AREAS,
    FAIL,
    OK,
    SKIP,
    WARN,
    Finding,
    Level,
    Verdict,
    fail,
    ok,
    skip,
    warn,
)

__all__ = [
    "AREAS",
    "FAIL",
    "OK",
    "SKIP",
    "WARN",
    "Finding",
    "Level",
    "Verdict",
    "fail",
    "ok",
    "skip",
    "warn",
]
