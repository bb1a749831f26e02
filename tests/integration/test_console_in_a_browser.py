"""The console as its user has it: in a real browser, beside a real server."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.harness.browser import Page, browser_page
from tests.harness.model_server import ModelServer, StartServer, free_port, wait_until

VERSIONS = "[...document.querySelectorAll('.version')].map((row) => row.querySelector('summary').innerText)"


@pytest.fixture
def page(tmp_path: pathlib.Path) -> Iterator[Page]:
    with browser_page(tmp_path / "browser") as page:
        yield page
        assert page.complaints == []


StartConsole = Callable[..., tuple[ModelServer, str]]


@pytest.fixture
def start_console(start_server: StartServer) -> StartConsole:
    """Starts a server with a console; gives both and the console's address."""

    def start(*flags: str) -> tuple[ModelServer, str]:
        port = free_port()
        server = start_server(f"--console_port={port}", *flags)
        return server, f"http://127.0.0.1:{port}/"

    return start


@pytest.mark.timeout(300)
def test_states_change_on_screen_while_a_version_is_swapped(
    page: Page, start_console: StartConsole, own_model: Callable[..., pathlib.Path], saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    _, address = start_console("--model_name=m", f"--model_base_path={base_path}")
    page.open(address)
    page.wait_for(f"{VERSIONS}.length === 1 && {VERSIONS}[0].includes('AVAILABLE')")
    assert page.text("#models h3") == "m"
    assert page.text("#readiness") == "ready"
    shutil.copytree(saved_models / "half_plus_two" / "2", base_path / "2")
    page.wait_for(
        f"{VERSIONS}.length === 2 && /^2\\s+AVAILABLE/.test({VERSIONS}[0]) && /^1\\s+END/.test({VERSIONS}[1])"
    )
    page.click(".version:nth-child(2) summary")
    page.wait_for("document.querySelector('.version:nth-child(2)').open")
    states = page.run(
        "[...document.querySelectorAll('.version:nth-child(2) li')].map((li) => li.innerText.split('\\n')[0])"
    )
    assert states == ["END", "UNLOADING", "AVAILABLE", "LOADING", "START"]


@pytest.mark.timeout(300)
def test_the_form_sends_a_real_request_to_the_model_and_shows_the_answer(
    page: Page, start_console: StartConsole, model_config: Callable[..., str]
) -> None:
    server, address = start_console(model_config("half_plus_two", "pair"))
    page.open(address)
    page.wait_for("document.querySelector('#request-inputs textarea') !== null")
    assert page.text("#request-inputs label").split("\n") == ["x", "float, ?"]
    page.choose("#request-inputs textarea", "[4, 6]")
    page.click("#send")
    page.wait_for("!document.querySelector('#answer').hidden")
    assert page.text("#answer-status") == "200 OK"
    assert json.loads(page.text("#answer-body")) == {"outputs": [4.0, 5.0]}
    # Another version, by its number.
    page.choose("#request-version", "2")
    page.choose("#request-model", "pair")
    page.wait_for("document.querySelectorAll('#request-inputs textarea').length === 2")
    page.choose("[data-input=a]", "[2]")
    page.choose("[data-input=b]", "[5]")
    page.click("#send")
    page.wait_for("document.querySelector('#answer-body').innerText.includes('product')")
    assert json.loads(page.text("#answer-body")) == {"outputs": {"sum": [7.0], "product": [10.0]}}
    # What was asked is in the charts, and what copies say can be run.
    page.wait_for("document.querySelector('.chart svg').getAttribute('aria-label').startsWith('Requests: ')")
    page.run("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click("#copy-curl")
    page.wait_for("window.copied.startsWith('curl ')")
    assert f"http://127.0.0.1:{server.rest_port}/v1/models/pair:predict" in page.run("window.copied")
    page.click("#copy-python")
    page.wait_for("window.copied.startsWith('import ')")
    lines: list[str] = []
    exec(page.run("window.copied"), {"print": lines.append})
    assert lines == [{"outputs": {"sum": [7.0], "product": [10.0]}}]


@pytest.mark.timeout(300)
def test_an_error_is_shown_of_a_request_of_a_version_and_of_a_server_that_has_gone(
    page: Page, start_console: StartConsole, own_model: Callable[..., pathlib.Path], saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    server, address = start_console("--model_name=m", f"--model_base_path={base_path}", "--max_num_load_retries=0")
    page.open(address)
    page.wait_for("document.querySelector('#request-inputs textarea') !== null")
    page.choose("#request-inputs textarea", '["no number"]')
    page.click("#send")
    page.wait_for("!document.querySelector('#answer').hidden")
    assert page.text("#answer-status") == "400 Bad Request"
    assert 'JSON Value: "no number" Type: String is not of expected type: float' in page.text("#answer-body")
    page.choose("#request-inputs textarea", "[4")
    page.click("#send")
    page.wait_for("document.querySelector('#answer-status').innerText === 'not sent'")

    shutil.copytree(saved_models / "corrupt" / "1", base_path / "3")
    page.wait_for(f"/^3\\s+FAILED/.test({VERSIONS}[0])")
    assert f"(loading {base_path / '3'}" in page.text(".version .error")
    assert page.text("#models .badge") == "serving"

    assert page.complaints.pop().startswith("Failed to load resource")  # the 400, which browsers log
    server.stop()
    page.wait_for("document.querySelector('#trouble').innerText.includes('does not answer')")
    assert page.text("#readiness") == "no answer"
    page.complaints.clear()  # connections refused, which browsers log


@pytest.mark.timeout(300)
def test_the_page_fits_a_phone_and_has_a_light_and_a_dark_look(
    page: Page, start_console: StartConsole, model_config: Callable[..., str]
) -> None:
    _, address = start_console(model_config("half_plus_two", "echo", "softmax"))
    looks = {}
    for scheme in ("light", "dark"):
        page.show_as(360, 740, scheme=scheme)
        page.open(address)
        page.wait_for("document.querySelectorAll('.version').length === 3")
        page.wait_for("document.querySelector('#request-inputs textarea') !== null")
        assert page.run("document.documentElement.scrollWidth") <= 360
        looks[scheme] = page.run("getComputedStyle(document.body).backgroundColor")
    assert looks["light"] != looks["dark"]
    page.click("#theme")
    assert page.run("getComputedStyle(document.body).backgroundColor") == looks["light"]


@pytest.mark.timeout(300)
def test_a_worker_that_dies_is_seen_to_start_again(
    page: Page, start_console: StartConsole, model_config: Callable[..., str]
) -> None:
    server, address = start_console(model_config("half_plus_two"))
    page.open(address)
    page.wait_for("document.querySelector('#workers').innerText.includes('UP')")
    pid = server.worker_pid
    assert str(pid) in page.text("#workers")
    os.kill(pid, 9)
    page.wait_for("document.querySelector('#workers').innerText.includes('was killed by signal 9 (SIGKILL)')")
    wait_until(lambda: server.worker_pid != pid, "a new worker")
    page.wait_for("document.querySelector('#workers').innerText.includes('UP')")
    assert page.run("document.querySelector('#workers td:nth-child(4)').innerText") == "2"


@pytest.mark.timeout(300)
def test_where_there_are_tokens_the_page_asks_for_one_and_shows_it_to_the_server(
    page: Page, start_console: StartConsole, model_config: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("predict,metrics 0123456789abcdef\nmetrics fedcba9876543210\n", encoding="ascii")
    _, address = start_console(model_config("half_plus_two"), f"--auth_token_file={tokens}")

    def show_token(token: str) -> None:
        page.wait_for("!document.querySelector('#access').hidden")
        page.choose("#token", token)
        page.click("#access button")

    page.open(address)
    page.wait_for("document.querySelector('#readiness').innerText === 'locked'")
    assert page.text("#access-text").startswith("A token is needed")
    assert page.text("#models") == ""
    show_token("nobody-0123456789")
    page.wait_for("document.querySelector('#access-text').innerText.includes('no bearer token that this server knows')")
    show_token("0123456789abcdef")
    page.wait_for("document.querySelector('#request-inputs textarea') !== null")
    page.choose("#request-inputs textarea", "[4, 6]")
    page.click("#send")
    page.wait_for("document.querySelector('#answer-body').innerText.includes('outputs')")
    # A copy says where the token goes, and not what it is.
    page.run("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    for button in ("#copy-curl", "#copy-python"):
        page.run("window.copied = ''")
        page.click(button)
        page.wait_for("window.copied.includes('TENSORGATE_TOKEN')")
        assert "0123456789abcdef" not in page.run("window.copied")
    page.complaints[:] = [each for each in page.complaints if "401" not in each]  # which browsers log
