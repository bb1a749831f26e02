"""The console's app: which files there are, who may ask, and what no answer goes without."""

import pathlib
import re

import pytest

from tensorgate._native.access_tokens import AccessTokens
from tensorgate.gateway.access_tokens import Access, Role
from tensorgate.gateway.console.app import FILES, ConsoleApp, is_loopback
from tensorgate.gateway.rest.http_application import BeginQuickly, Begun
from tensorgate.gateway.rest.http_messages import Answer, RequestHead, json_answer

PAGE = pathlib.Path(__file__).resolve().parents[4] / "gateway" / "console" / "page"


class ScriptedRest:
    """REST's application, as far as the console asks it."""

    max_body_bytes = 1000

    def begin(self, head: RequestHead) -> Begun:
        return json_answer(head.raw_path)

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        raise AssertionError("nothing is in a hurry here")

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        return Answer(413)


def ask(
    path: bytes,
    verb: str = "GET",
    *,
    any_host: bool = False,
    query: bytes = b"",
    access: Access | None = None,
    **headers: bytes,
) -> Answer:
    app = ConsoleApp(ScriptedRest(), lambda after: b"%d" % after, takes_any_host=any_host, access=access)
    head = RequestHead(verb, path, query)
    for name, value in {"host": b"127.0.0.1:8080", **headers}.items():
        head.add_header(name.encode(), value)
    answer = app.begin(head)
    assert isinstance(answer, Answer)
    return answer


def test_every_file_of_the_page_is_served_and_nothing_else() -> None:
    assert {name for name, _ in FILES.values()} == {path.name for path in PAGE.iterdir()}
    for path, (name, kind) in FILES.items():
        answer = ask(path)
        assert (answer.status, answer.body, answer.content_type) == (200, (PAGE / name).read_bytes(), kind)
    for path in (b"/index.html", b"/../app.py", b"/%2e%2e/app.py", b"/metrics"):
        assert ask(path).status == 404
    assert ask(b"/", "POST").status == 405


def test_the_page_loads_nothing_but_its_own_files_and_runs_no_script_of_its_text() -> None:
    for name, _ in FILES.values():
        text = (PAGE / name).read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"'`$]*", text)) <= {"http://www.w3.org/2000/svg", "http://"}
        assert "innerHTML" not in text
        assert " style=" not in text
        assert not re.search(r"\son[a-z]+=", text)
    policy = dict(ask(b"/").headers)[b"content-security-policy"]
    assert policy.startswith(b"default-src 'none'; script-src 'self';")
    assert b"unsafe" not in policy
    assert policy == dict(ask(b"/overview").headers)[b"content-security-policy"]


@pytest.mark.parametrize(
    ("query", "after"), [(b"", 0), (b"after=12", 12), (b"after=-1", 0), (b"after=x", 0), (b"after=" + b"9" * 99, 0)]
)
def test_the_overview_is_asked_for_what_the_page_has_not(query: bytes, after: int) -> None:
    assert ask(b"/overview", query=query).body == b"%d" % after


def test_rests_api_answers_for_the_form() -> None:
    assert ask(b"/v1/models/m").body == b"/v1/models/m"


@pytest.mark.parametrize("host", [b"localhost:80", b"127.0.0.1", b"[::1]:80", b"10.1.2.3:80", b"a.localhost"])
def test_an_address_and_localhost_are_the_consoles_own(host: bytes) -> None:
    assert ask(b"/", host=host).status == 200


@pytest.mark.parametrize("host", [b"evil.example", b"", b"localhost.evil.example:80", b"[::1", b"[", b"\xff"])
def test_a_name_that_may_be_somebody_elses_is_refused_on_loopback_only(host: bytes) -> None:
    assert ask(b"/overview", host=host).status == 403
    assert ask(b"/v1/models/m", host=host).status == 403
    assert ask(b"/overview", host=host, any_host=True).status == 200


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"http://127.0.0.1:81", b"http://[", b"\xff"])
def test_another_sites_page_may_not_send_requests(origin: bytes) -> None:
    assert ask(b"/v1/models/m:predict", "POST", origin=origin).status == 403
    assert ask(b"/v1/models/m:predict", "POST", origin=origin, any_host=True).status == 403


def test_the_consoles_own_page_may() -> None:
    assert ask(b"/v1/models/m:predict", "POST", origin=b"http://127.0.0.1:8080").status == 200


def test_what_is_loopback() -> None:
    assert all(is_loopback(address) for address in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(address) for address in ("0.0.0.0", "::", "10.0.0.1", "host.example"))


def test_where_there_are_tokens_the_overview_needs_one_and_the_pages_files_none() -> None:
    access = Access(AccessTokens([(role.name.encode(), role) for role in Role if role.name]))
    statuses = {
        token: ask(b"/overview", access=access, authorization=b"Bearer " + token).status
        for token in (b"ADMIN", b"METRICS", b"PREDICT", b"other")
    }
    assert statuses == {b"ADMIN": 200, b"METRICS": 200, b"PREDICT": 403, b"other": 401}
    assert dict(ask(b"/overview", access=access).headers)[b"www-authenticate"] == b"Bearer"
    assert b"x-content-type-options" in dict(ask(b"/overview", access=access).headers)
    for path in FILES:
        assert ask(path, access=access).status == 200
