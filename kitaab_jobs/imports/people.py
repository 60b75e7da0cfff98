"""The people whom a file names, looked up a batch at a time and kept while there is room."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from kitaab_jobs.imports import queries
from kitaab_jobs.imports.catalogue import Deed, Item, Person, Value
from kitaab_jobs.imports.rules import BadLine
from kitaab_jobs.imports.wording import Nearest, shown
from kitaab_jobs.timing import is_zone, local_date

# How many names of deeds, items and values are kept of the people of earlier batches: some 40 MB.
REMEMBERED = 100_000
# For how many e-mails that nobody has similar ones are looked up.
HINTS = 50


class People:
    """Finds people by e-mail. `now` decides which date is today in their zones.

    `unknown_zones` are stored names that are no IANA zone; they count as UTC.
    """

    def __init__(self, connection: Connection, now: dt.datetime) -> None:
        self._connection = connection
        self._now = now
        self._known: OrderedDict[str, Person | str] = OrderedDict()  # by e-mail; a text is why there is none
        self._size = 0
        self._hints = HINTS
        self._nearest = Nearest(HINTS)
        self._days: dict[str, dt.date] = {}
        self.unknown_zones: set[str] = set()

    def learn(self, emails: Iterable[str]) -> None:
        """Look up those of a batch's e-mails that are not known, in a few queries."""
        wanted = dict.fromkeys(email.lower() for email in emails)
        missing = [email for email in wanted if email not in self._known]
        for email in wanted.keys() & self._known.keys():
            self._known.move_to_end(email)
        while self._size > REMEMBERED and len(self._known) > len(wanted) - len(missing):
            self._size -= _size(self._known.popitem(last=False)[1])
        if missing:
            self._load(missing)

    def find(self, email: str) -> Person:
        """Return the person who has an e-mail that was learned in this batch; raise `BadLine`."""
        found = self._known[email.lower()]
        if isinstance(found, str):
            raise BadLine(found)
        return found

    def _load(self, emails: Sequence[str]) -> None:
        found: dict[str, Person] = {}
        for row in queries.people(self._connection, emails):
            zone, today = self._today(row.timezone)
            found[row.asked] = Person(row.user_id, row.email, zone, today)
        if found:
            self._load_deeds({person.user_id: person for person in found.values()})
        unknown = [email for email in emails if email not in found]
        self._known.update(found)
        self._known.update(self._why_unknown(unknown) if unknown else {})
        self._size += sum(_size(self._known[email]) for email in emails)

    def _load_deeds(self, people: dict[int, Person]) -> None:
        deeds: dict[int, Deed] = {}
        for row in queries.items(self._connection, people):
            person = people[row.user_id]
            deed = deeds.get(row.deed_id)
            if deed is None:
                deed = deeds[row.deed_id] = Deed(row.name, row.deleted)
                person.deeds.add([row.name], deed)
            if row.path is not None:
                deed.items.add(row.path, Item(row.deed_item_id, row.counted, row.item_deleted))
            person.size += 1
        for row in queries.values(self._connection, people):
            rank = (row.in_use, row.version)
            value = Value(row.scale_value_id, row.scale_id, row.scale, rank, row.deleted)
            deeds[row.deed_id].values.add([row.value_name], value)
            people[row.user_id].size += 1

    def _today(self, zone: str) -> tuple[str, dt.date]:
        if not is_zone(zone):
            self.unknown_zones.add(zone)
            zone = "UTC"
        if zone not in self._days:
            self._days[zone] = local_date(self._now, zone)
        return zone, self._days[zone]

    def _why_unknown(self, emails: Sequence[str]) -> dict[str, str]:
        deleted = queries.deleted_people(self._connection, emails)
        strange = [email for email in emails if email not in deleted]
        hinted, self._hints = strange[: self._hints], max(0, self._hints - len(strange))
        similar = queries.similar_people(self._connection, hinted) if hinted else ()
        reasons = {
            email: f"the person {shown(email)} was deleted: leave their lines out" for email in deleted
        }
        for email in strange:
            hint = (similar and self._nearest.to(email, similar)) or "add the person first"
            reasons[email] = f"nobody has the e-mail {shown(email)}: {hint}"
        return reasons


def _size(known: Person | str) -> int:
    return 1 if isinstance(known, str) else known.size
