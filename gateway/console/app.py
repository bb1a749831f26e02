"""What the console's listener answers: the files of the page, the overview, and REST's own API for the page's form.

Between the HTTP connections and the overview; runs on the edge loop. Nobody logs in here, so what a stranger's web page
could have a browser do is refused (where there are tokens, the page sends the one that its reader has typed, with every
request): requests under a name that somebody else's DNS may have given this host (DNS
rebinding), and requests that another site's page sends (cross-site request forgery). The page may load nothing but
itself.

Sources: Content Security Policy Level 3; RFC 6454 (Origin); RFC 9110 7.2 (Host).
"""

import ipaddress
import logging
from collections.abc import Callable
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from tensorgate.gateway.access_tokens import Access, Role
from tensorgate.gateway.rest.http_application import Application, BeginQuickly, Begun
from tensorgate.gateway.rest.http_messages import JSON_TYPE, TEXT_TYPE, Answer, RequestHead, access_error
from tensorgate.gateway.rest.url_grammar import is_api_path

logger = logging.getLogger("tensorgate.console")

OVERVIEW_PATH = b"/overview"
OVERVIEW_ROLES = Role.METRICS | Role.ADMIN

# The page's files by path: nothing else of the file system can be asked for.
FILES = {
    b"/": ("index.html", b"text/html; charset=utf-8"),
    b"/console.css": ("console.css", b"text/css; charset=utf-8"),
    b"/icon.svg": ("icon.svg", b"image/svg+xml"),
    **{
        b"/%s" % name.encode(): (name, b"text/javascript; charset=utf-8")
        for name in ("console.js", "access.js", "elements.js", "charts.js", "models.js", "request.js", "snippets.js")
    },
}

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

FOREIGN_HOST = (
    "The console is asked for by its address or as localhost; %r may be anybody's name for it. "
    "Where it is to be reached by name, give it an address of the network by --console_address."
)
FOREIGN_ORIGIN = "The console takes requests from its own page only, not from one of %r."


class ConsoleApp:
    """The Application of the console's connections, in front of REST's."""

    def __init__(
        self, rest: Application, overview: Callable[[int], bytes], *, takes_any_host: bool, access: Access | None = None
    ) -> None:
        """``overview``: the JSON document, given the number of the last sample that the page has.

        ``takes_any_host``: for a console that is on the network anyway, where its name is the network's business.

        ``access``: None where nobody is asked for a token; ``rest`` asks for itself.
        """
        self.max_body_bytes = rest.max_body_bytes
        self._rest = rest
        self._overview = overview
        self._takes_any_host = takes_any_host
        self._access = access
        folder = resources.files(__package__) / "page"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}

    def begin(self, head: RequestHead) -> Begun:
        """Application."""
        refusal = self._refusal(head)
        if refusal:
            return _finished(Answer(HTTPStatus.FORBIDDEN.value, f"{refusal}\n".encode(), TEXT_TYPE))
        if is_api_path(head.raw_path):
            return self._rest.begin(head)
        return _finished(self._page(head))

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        """Application: nothing is in a hurry here."""
        return None

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        """Application."""
        return self._rest.refuse_body(head, num_bytes)

    def _page(self, head: RequestHead) -> Answer:
        if head.verb not in {"GET", "HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        if head.raw_path == OVERVIEW_PATH:
            if self._access is not None and (error := self._access.refusal(head.authorization, OVERVIEW_ROLES)):
                return access_error(error)
            try:
                return Answer(HTTPStatus.OK.value, self._overview(_after(head.query_string)), JSON_TYPE)
            except Exception:
                logger.exception("the overview failed unexpectedly")
                return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        file = self._files.get(head.raw_path)
        if file is None:
            return _plain(HTTPStatus.NOT_FOUND)
        return Answer(HTTPStatus.OK.value, *file)

    def _refusal(self, head: RequestHead) -> str:
        """Why the request is not answered; empty where it is."""
        host = head.host.decode("latin-1")
        if not (self._takes_any_host or _is_own_name(host)):
            return FOREIGN_HOST % host
        origin = head.origin.decode("latin-1")
        if origin and _netloc(origin) != host.lower():
            return FOREIGN_ORIGIN % origin
        return ""


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a listener on the address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _is_own_name(host: str) -> bool:
    """Whether a Host header can be nobody else's: an address, or localhost; with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _after(query_string: bytes) -> int:
    """The number that ``?after=`` gives; 0 for none, or for what is none."""
    text = parse_qs(query_string.decode("latin-1")).get("after", ["0"])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status.value, f"{status.phrase}\n".encode(), TEXT_TYPE)


def _finished(answer: Answer) -> Answer:
    return Answer(answer.status, answer.body, answer.content_type, answer.headers + _HEADERS)
