"""Sample data that looks like life: people in all kinds of zones, with years of deeds and entries.

`load` writes it into a migrated database; `nearly_there` finds merits that one entry completes.
"""

from kitaab_jobs.devstack.sample.loader import Report, load
from kitaab_jobs.devstack.sample.nearly import NearlyThere, nearly_there

__all__ = ["NearlyThere", "Report", "load", "nearly_there"]
