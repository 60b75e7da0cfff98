"""What messages say, in the person's language and direction.

The words of each language are `words/<language>.toml`; the layout of an e-mail is `templates/`. A template gets the
letter's own words and nothing else. What a person wrote (the name of a merit) appears in the body of an e-mail only:
subjects and push messages stand on lock screens. It is set apart from the text around it, which may run the other way.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kitaab_jobs.reminders.channels.protocol import Letter

LANGUAGES = ("en", "ar", "ur", "tr", "id")
FALLBACK = "en"
RIGHT_TO_LEFT = frozenset({"ar", "ur"})
# Unicode's own way to set a name apart (FSI and PDI), where there is no <bdi>.
_APART = "\u2068{}\u2069"
# What would turn the text after a name around.
_TURNS = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))


@dataclass(frozen=True, slots=True)
class Said:
    """One message in words. `lines` are the paragraphs, of which a name is a part only as `{name}`."""

    language: str
    direction: str
    subject: str
    short: str
    lines: tuple[str, ...]
    name: str | None
    button: str
    why: str
    unsubscribe: str
    brand: str

    def paragraphs(self) -> list[str]:
        """Return the paragraphs as plain text."""
        return [self._with_name(line) for line in self.lines]

    def parts(self) -> list[tuple[str, bool, str]]:
        """Return for each paragraph what stands before the name, whether it is there, and what stands behind it."""
        return [
            (before, bool(found), after)
            for before, found, after in (line.partition("{name}") for line in self.lines)
        ]

    def _with_name(self, line: str) -> str:
        return line.replace("{name}", _APART.format(self.name or ""))


def language_of(given: str) -> str:
    """Return the language that is written to somebody who chose `given` ("ar-EG" is "ar")."""
    short = given.replace("_", "-").partition("-")[0].lower()
    return short if short in LANGUAGES else FALLBACK


def say(letter: Letter) -> Said:
    """Put a letter into words."""
    language = language_of(letter.language)
    words = _words(language)
    of_kind = words[letter.kind]
    lines = of_kind["lines"] if letter.name or letter.kind == "reminder" else of_kind["nameless"]
    day = spell(letter.day, words)
    return Said(
        language=language,
        direction="rtl" if language in RIGHT_TO_LEFT else "ltr",
        subject=of_kind["subject"].replace("{day}", day),
        short=of_kind["short"].replace("{day}", day),
        lines=tuple(line.replace("{day}", day) for line in lines),
        name=None if letter.name is None else " ".join(letter.name.translate(_TURNS).split()),
        button=of_kind["button"],
        why=of_kind["why"],
        unsubscribe=words["unsubscribe"],
        brand=words["brand"],
    )


def spell(day: dt.date, words: Mapping[str, Any]) -> str:
    """Return a date in words: 25 November 2026."""
    return f"{day.day} {words['months'][day.month - 1]} {day.year}"


def plain(said: Said, *, link: str, unsubscribe: str) -> str:
    """Return the plain-text part of an e-mail."""
    return _templates().get_template("email.txt.j2").render(said=said, link=link, unsubscribe=unsubscribe)


def html(said: Said, *, link: str, unsubscribe: str) -> str:
    """Return the HTML part of an e-mail."""
    return _templates().get_template("email.html.j2").render(said=said, link=link, unsubscribe=unsubscribe)


@lru_cache
def _words(language: str) -> dict[str, Any]:
    path = files("kitaab_jobs.reminders.channels") / "words" / f"{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("kitaab_jobs.reminders.channels"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
