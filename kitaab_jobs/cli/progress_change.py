"""`kitaab-jobs progress recompute`: compare, ask, compute in batches, say what was wrong."""

from __future__ import annotations


def recompute() -> None:
    """Compute merits and targets again."""
