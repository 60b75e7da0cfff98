"""Where people live: zones with their share of people, language, names and days of rest."""

from __future__ import annotations

from typing import NamedTuple

# Days of the week as in date.weekday(): 0 is Monday.
_SATURDAY_SUNDAY = (5, 6)
_FRIDAY_SATURDAY = (4, 5)
_FRIDAY = (4,)


class Place(NamedTuple):
    """A zone: `weight` is its share of people, `weekend` its days of rest (0 is Monday)."""

    zone: str
    language: str
    culture: str
    weight: int
    weekend: tuple[int, ...]


def _places(culture: str, language: str, weekend: tuple[int, ...], **cities: int) -> list[Place]:
    return [
        Place(name.replace("__", "/"), language, culture, weight, weekend) for name, weight in cities.items()
    ]


# Two underscores stand for the slash. Besides the places where most people are, the zones that break
# programs: half and quarter hours, a half-hour summer time, both sides of the date line.
PLACES: tuple[Place, ...] = (
    *_places("urdu", "ur", _SATURDAY_SUNDAY, Asia__Karachi=90),
    *_places("indonesian", "id", _SATURDAY_SUNDAY, Asia__Jakarta=70, Asia__Makassar=8, Asia__Jayapura=2),
    *_places("turkish", "tr", _SATURDAY_SUNDAY, Europe__Istanbul=50),
    *_places(
        "arab", "ar", _FRIDAY_SATURDAY, Africa__Cairo=45, Asia__Baghdad=8, Africa__Khartoum=6, Asia__Gaza=6
    ),
    *_places("levantine", "ar", _FRIDAY_SATURDAY, Asia__Riyadh=25, Asia__Amman=6, Africa__Algiers=8),
    *_places("levantine", "ar", _SATURDAY_SUNDAY, Asia__Dubai=12, Asia__Beirut=4),
    *_places("bengali", "bn", _FRIDAY_SATURDAY, Asia__Dhaka=40),
    *_places("indian", "hi", _SATURDAY_SUNDAY, Asia__Kolkata=35),
    *_places("english", "en", _SATURDAY_SUNDAY, Europe__London=35, America__New_York=28, America__Toronto=10),
    *_places(
        "english", "en", _SATURDAY_SUNDAY, America__Chicago=10, America__Los_Angeles=10, Europe__Dublin=2
    ),
    *_places(
        "english", "en", _SATURDAY_SUNDAY, Australia__Sydney=8, Australia__Adelaide=3, America__St_Johns=1
    ),
    *_places("english", "en", _SATURDAY_SUNDAY, Australia__Lord_Howe=1, Australia__Eucla=1),
    *_places("persian", "fa", _FRIDAY, Asia__Tehran=10, Asia__Kabul=8),
    *_places("malay", "ms", _SATURDAY_SUNDAY, Asia__Kuala_Lumpur=25, Asia__Singapore=6),
    *_places("west_african", "en", _SATURDAY_SUNDAY, Africa__Lagos=20, Africa__Accra=3),
    *_places("west_african", "fr", _SATURDAY_SUNDAY, Africa__Dakar=6, Africa__Bamako=3),
    *_places("maghreb", "fr", _SATURDAY_SUNDAY, Africa__Casablanca=14, Africa__Tunis=6, Europe__Paris=14),
    *_places("german", "de", _SATURDAY_SUNDAY, Europe__Berlin=14, Europe__Vienna=3),
    *_places("balkan", "bs", _SATURDAY_SUNDAY, Europe__Sarajevo=5),
    *_places("nepali", "en", _SATURDAY_SUNDAY, Asia__Kathmandu=5, Asia__Colombo=4),
    *_places("latin", "es", _SATURDAY_SUNDAY, America__Santiago=2, America__Bogota=2, Europe__Madrid=3),
    *_places("latin", "pt", _SATURDAY_SUNDAY, America__Sao_Paulo=4, Atlantic__Azores=1),
    *_places("swahili", "en", _SATURDAY_SUNDAY, Africa__Nairobi=8, Africa__Johannesburg=4),
    *_places("turkic", "ru", _SATURDAY_SUNDAY, Asia__Tashkent=6, Asia__Almaty=4, Europe__Moscow=4),
    *_places("pacific", "en", _SATURDAY_SUNDAY, Pacific__Auckland=3, Pacific__Chatham=1, Pacific__Apia=1),
    *_places(
        "pacific", "en", _SATURDAY_SUNDAY, Pacific__Kiritimati=1, Pacific__Honolulu=2, Pacific__Marquesas=1
    ),
    *_places("east_asian", "en", _SATURDAY_SUNDAY, Asia__Tokyo=3, Asia__Hong_Kong=3, Asia__Yangon=1),
)
