"""The pages: a list, an e-mail with its parts, and what its links need of the app.

What an e-mail brings along runs nothing: its HTML is shown in a frame without scripts, forms or an origin, and nothing
is loaded from elsewhere. A page is answered only under the names of loopback, or a web site of somebody else
could have its own name lead here and read the e-mails.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from kitaab_jobs.devstack.mailsink.store import Store
from kitaab_jobs.errors import KitaabError

NAMES = ("127.0.0.1", "localhost", "[::1]")
MAX_FORM = 10_000

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# `sandbox` takes away scripts, forms and the origin also where the part is opened by itself.
_PART_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

# Applies a token, and returns a sentence about it; raises KitaabError for a bad one.
Unsubscribe = Callable[[str], str]


def server(port: int, host: str, store: Store, unsubscribe: Unsubscribe) -> ThreadingHTTPServer:
    """Return the web server; `serve_forever` runs it."""

    class Requests(_Requests):
        pass

    Requests.store, Requests.unsubscribe = store, staticmethod(unsubscribe)
    made = ThreadingHTTPServer((host, port), Requests)
    made.daemon_threads = True
    return made


class _Requests(BaseHTTPRequestHandler):
    store: Store
    unsubscribe: Unsubscribe
    timeout = 30

    def do_GET(self) -> None:
        if not self._is_for_us():
            return
        path, _, rest = urlsplit(self.path).path.strip("/").partition("/")
        if path == "unsubscribe":
            self._page("unsubscribe", token=self._token(urlsplit(self.path).query), done=None, error=None)
        elif not path:
            self._page("list", mails=self.store.all(), total=self.store.total)
        elif path == "mail":
            self._mail(*rest.partition("/")[::2])
        else:
            self._page("missing", HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self._is_for_us():
            return
        parts = urlsplit(self.path)
        length = self.headers.get("Content-Length", "0")
        form = self.rfile.read(min(int(length), MAX_FORM) if length.isdigit() else 0).decode(
            "utf-8", "replace"
        )
        if parts.path != "/unsubscribe":
            self._page("missing", HTTPStatus.NOT_FOUND)
            return
        # As RFC 8058 has it the token is in the address; the page's own form sends it along.
        token = self._token(parts.query) or self._token(form)
        try:
            said = self.unsubscribe(token)
        except KitaabError as error:
            self._page("unsubscribe", HTTPStatus.BAD_REQUEST, token="", done=None, error=str(error))
            return
        self._page("unsubscribe", token="", done=said, error=None)

    def _mail(self, number: str, part: str) -> None:
        mail = self.store.get(int(number)) if number.isascii() and number.isdigit() else None
        if mail is None:
            self._page("missing", HTTPStatus.NOT_FOUND)
        elif part == "html":
            self._send(mail.part("html") or "", "text/html", _PART_POLICY)
        elif part == "source":
            self._send(mail.source.decode("utf-8", "replace"), "text/plain", _PART_POLICY)
        elif part == "":
            self._page("mail", mail=mail, plain=mail.part("plain"), has_html=mail.part("html") is not None)
        else:
            self._page("missing", HTTPStatus.NOT_FOUND)

    def _is_for_us(self) -> bool:
        host = self.headers.get("Host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name in NAMES:
            return True
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this is not where you think it is")
        return False

    @staticmethod
    def _token(query: str) -> str:
        return parse_qs(query).get("token", [""])[0]

    def _page(self, name: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> None:
        text = _TEMPLATES.get_template(f"{name}.html.j2").render(**values)
        self._send(text, "text/html", _PAGE_POLICY, status)

    def _send(self, text: str, kind: str, policy: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses of requests carry tokens."""


_TEMPLATES = Environment(
    loader=PackageLoader("kitaab_jobs.devstack.mailsink"),
    autoescape=select_autoescape(["html.j2"], default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
