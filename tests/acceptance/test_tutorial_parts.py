"""The parts of the tutorial's app that need no Flask and no worker."""

from __future__ import annotations

import contextlib
import io
import smtplib
import threading
from collections.abc import Callable, Iterator
from datetime import date
from email.message import EmailMessage
from pathlib import Path

import pypdf
import pytest
from flask import Flask
from flask_mailman import Mail
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

import tutorial  # first: it puts the example on the path

import outbox  # isort: skip
import quote  # isort: skip
import report  # isort: skip
import services  # isort: skip
import settings  # isort: skip
import welcome  # isort: skip
from flask_offload import UserError  # isort: skip

MARCH = date(2026, 3, 1)


# -- the report


def test_report_has_a_page_a_shop_with_chart_and_table() -> None:
    reader = pypdf.PdfReader(io.BytesIO(report.build(MARCH, 3)))

    assert len(reader.pages) == 3
    assert reader.metadata is not None
    assert reader.metadata.title == "Orders in March 2026"
    assert [str(item.title) for item in reader.outline] == ["Shop 1", "Shop 2", "Shop 3"]
    for number, page in enumerate(reader.pages, 1):
        text = page.extract_text()
        assert f"Shop {number}: orders in March 2026" in text
        assert f"Page {number} of 3" in text
        orders = report.orders(MARCH, number)
        assert f"{sum(count for count, _ in orders.values()):,}" in text
        assert "Tue 31 March" in text
        # A bar a day: rectangles that are filled, not a picture.
        assert page.get_contents().get_data().count(b" re f") >= 31  # type: ignore[union-attr]
        assert not page.images


@pytest.mark.parametrize("pages", [1, 50])
def test_report_of_any_size_tells_each_page(pages: int) -> None:
    told: list[tuple[float, float, str]] = []

    pdf = report.build(MARCH, pages, lambda *what: told.append(what))

    assert len(pypdf.PdfReader(io.BytesIO(pdf)).pages) == pages
    assert [done for done, _, _ in told] == list(range(pages + 1))
    assert {total for _, total, _ in told} == {pages}
    assert told[0][2] == f"Page 1 of {pages}"


def test_report_numbers_are_the_same_each_time_and_end_today() -> None:
    assert report.orders(MARCH, 1) == report.orders(MARCH, 1)
    assert report.orders(MARCH, 1) != report.orders(MARCH, 2)
    assert max(report.orders(MARCH, 1, today=date(2026, 3, 7))) == date(2026, 3, 7)


def test_report_that_is_stopped_stops_at_the_page() -> None:
    class Stopped(BaseException):
        pass

    def stop(done: float, total: float, message: str) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        report.build(MARCH, 50, stop)


# -- the quote

Reply = Response | Callable[[Request], Response]


class ThirdParty:
    """A real HTTP server on loopback that answers as a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[str] = []

    def __call__(self, environ, start_response):  # type: ignore[no-untyped-def]
        request = Request(environ)
        self.asked.append(request.path)
        reply = self.replies.get(request.path, Response(status=404))
        response = reply if isinstance(reply, Response) else reply(request)
        return response(environ, start_response)


@contextlib.contextmanager
def third_party() -> Iterator[tuple[ThirdParty, str]]:
    site = ThirdParty()
    server = make_server("127.0.0.1", 0, site, threaded=True, request_handler=services.Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield site, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def redirect_to(url: str) -> Response:
    return Response(status=302, headers={"Location": url})


def price(value: str = "1.5") -> Response:
    text = f'{{"symbol": "ACME", "price": {value}, "currency": "EUR", "more": "noise"}}'
    return Response(text, content_type="application/json")


@pytest.fixture
def exchange() -> Iterator[tuple[ThirdParty, str]]:
    with third_party() as pair:
        yield pair


def test_quote_keeps_what_it_needs(exchange: tuple[ThirdParty, str]) -> None:
    site, url = exchange
    site.replies["/ACME"] = price()

    answer = quote.fetch_quote(url, "ACME", {url})

    assert answer == {"symbol": "ACME", "price": 1.5, "currency": "EUR"}


def test_quote_calls_nobody_who_is_not_listed(exchange: tuple[ThirdParty, str]) -> None:
    site, url = exchange

    with pytest.raises(UserError, match=r"127\.0\.0\.1 is not a host"):
        quote.fetch_quote(url, "ACME", {"https://api.example.com"})

    assert site.asked == []


def test_quote_of_a_listed_host_on_another_port_is_not_listed(
    exchange: tuple[ThirdParty, str],
) -> None:
    site, url = exchange
    with third_party() as (_, other):
        with pytest.raises(UserError, match="is not a host"):
            quote.fetch_quote(url, "ACME", {other})
    assert site.asked == []


def test_quote_follows_redirects_between_listed_hosts(exchange: tuple[ThirdParty, str]) -> None:
    site, url = exchange
    with third_party() as (other_site, other):
        site.replies["/ACME"] = redirect_to(f"{other}/moved")
        other_site.replies["/moved"] = price()

        assert quote.fetch_quote(url, "ACME", {url, other})["price"] == 1.5


@pytest.mark.parametrize("path", ["/secret", "//127.0.0.1/secret"])
def test_quote_follows_no_redirect_off_the_list(
    exchange: tuple[ThirdParty, str], path: str
) -> None:
    site, url = exchange
    with third_party() as (other_site, other):
        target = f"{other}{path}" if path == "/secret" else path
        site.replies["/ACME"] = redirect_to(target)

        with pytest.raises(UserError, match="is not a host"):
            quote.fetch_quote(url, "ACME", {url})

        assert other_site.asked == []


def test_quote_follows_no_redirect_to_another_scheme(exchange: tuple[ThirdParty, str]) -> None:
    site, url = exchange
    site.replies["/ACME"] = redirect_to("file:///etc/passwd")

    with pytest.raises(UserError):
        quote.fetch_quote(url, "ACME", {url})


def test_quote_leaves_a_ring_of_redirects(exchange: tuple[ThirdParty, str]) -> None:
    site, url = exchange
    site.replies["/ACME"] = redirect_to("/ACME")

    with pytest.raises(UserError, match="round in circles"):
        quote.fetch_quote(url, "ACME", {url})

    assert len(site.asked) == quote.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "reply",
    [
        Response(status=503),
        Response(status=429),
        Response("<html>", content_type="text/html"),
        Response("[]"),
        Response('{"symbol": "ACME"}'),
        price("NaN"),
        price("1e999"),
        price("true"),
    ],
    ids=["503", "429", "html", "list", "no price", "NaN", "infinite", "bool"],
)
def test_quote_that_may_work_in_a_moment(exchange: tuple[ThirdParty, str], reply: Response) -> None:
    site, url = exchange
    site.replies["/ACME"] = reply

    with pytest.raises(quote.NoAnswer):
        quote.fetch_quote(url, "ACME", {url})


def test_quote_of_an_unknown_share_is_final(exchange: tuple[ThirdParty, str]) -> None:
    _, url = exchange
    with pytest.raises(UserError, match="does not know") as caught:
        quote.fetch_quote(url, "NOPE", {url})
    assert not isinstance(caught.value, quote.NoAnswer)


def test_quote_from_nobody_may_work_in_a_moment() -> None:
    with third_party() as (_, url):
        pass
    with pytest.raises(quote.NoAnswer, match="cannot be reached"):
        quote.fetch_quote(url, "ACME", {url})


def test_quote_does_not_wait_for_ever(
    exchange: tuple[ThirdParty, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, url = exchange
    released = threading.Event()

    def late(request: Request) -> Response:
        released.wait(30)
        return price()

    site.replies["/ACME"] = late
    monkeypatch.setattr(quote, "TIMEOUT", 0.2)
    try:
        with pytest.raises(quote.NoAnswer, match="too long"):
            quote.fetch_quote(url, "ACME", {url})
    finally:
        released.set()


def test_quote_does_not_wait_for_a_drip(
    exchange: tuple[ThirdParty, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, url = exchange
    released = threading.Event()

    def drip() -> Iterator[bytes]:
        while not released.wait(0.05):
            yield b" "

    site.replies["/ACME"] = lambda _: Response(drip())
    monkeypatch.setattr(quote, "DEADLINE", 0.5)
    try:
        with pytest.raises(quote.NoAnswer, match="too long"):
            quote.fetch_quote(url, "ACME", {url})
    finally:
        released.set()


def test_quote_reads_no_more_than_a_quote(exchange: tuple[ThirdParty, str]) -> None:
    site, url = exchange
    site.replies["/ACME"] = Response(b" " * (quote.MAX_BYTES + 1))

    with pytest.raises(UserError, match="more than a quote"):
        quote.fetch_quote(url, "ACME", {url})


def test_flaky_api_answers_every_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quote, "TIMEOUT", 0.6)
    with services.flaky_api(late=1.5) as url:
        origins = {settings.origin(url)}
        for _ in range(2):
            with pytest.raises(quote.NoAnswer, match="503"):
                quote.fetch_quote(url, "ACME", origins)
            with pytest.raises(quote.NoAnswer, match="too long"):
                quote.fetch_quote(url, "ACME", origins)
            assert quote.fetch_quote(url, "ACME", origins)["symbol"] == "ACME"


# -- the mail


def mail(subject: str = "Hello", text: str = "Text\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ada <ada@example.org>"
    message["To"] = "bob@example.org"
    message["Subject"] = subject
    message.set_content(text)
    return message


def test_mail_goes_through_smtp_into_the_folder(tmp_path: Path) -> None:
    with services.smtp_sink(tmp_path) as port:
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.send_message(mail("First", "Grüße\n"))
            client.send_message(mail("Second <b>"))

    second, first = outbox.read(tmp_path)
    assert (second.subject, first.subject) == ("Second <b>", "First")
    assert (first.sender, first.to) == ("Ada <ada@example.org>", "bob@example.org")
    assert first.text.strip() == "Grüße"
    assert first.arrived <= second.arrived


def test_sink_stops_with_a_connection_open(tmp_path: Path) -> None:
    with services.smtp_sink(tmp_path) as port:
        client = smtplib.SMTP("127.0.0.1", port)
    client.close()


def test_outbox_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEEP", 3)
    for number in range(5):
        outbox.save(tmp_path, bytes(mail(f"Number {number}")))

    assert [mail.subject for mail in outbox.read(tmp_path)] == ["Number 4", "Number 3", "Number 2"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"Subject: x\r\nContent-Type: text/plain; charset=nope\r\n\r\n\xe9"],
)
def test_outbox_shows_what_is_hardly_a_mail(tmp_path: Path, content: bytes) -> None:
    outbox.save(tmp_path, content)
    assert len(list(outbox.read(tmp_path))) == 1


def test_outbox_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(outbox.read(tmp_path / "nothing")) == []


def welcome_by(port: int, email: str = "bob@example.org") -> None:
    app = Flask("welcome", root_path=str(tutorial.EXAMPLE))
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=port, MAIL_DEFAULT_SENDER="us@example.org")
    Mail(app)
    with app.app_context():
        welcome.send("Bob & <Co>", email, message_id="<1@example.org>")


def test_welcome_is_plain_text_with_the_id_of_its_job(tmp_path: Path) -> None:
    with services.smtp_sink(tmp_path) as port:
        welcome_by(port)
    (path,) = tmp_path.iterdir()
    content = path.read_text()
    assert "Message-ID: <1@example.org>" in content
    assert "Hello Bob & <Co>," in content


@pytest.mark.parametrize(
    ("answer", "again"),
    [("450 4.2.1 later", True), ("550 5.1.1 nobody", False), ("421 closing", True)],
)
@pytest.mark.parametrize("stage", ["handle_MAIL", "handle_RCPT", "handle_DATA"])
def test_welcome_tells_later_from_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, answer: str, again: bool
) -> None:
    async def refuse(*_: object) -> str:
        return answer

    monkeypatch.setattr(services.Deliver, stage, refuse, raising=False)
    with services.smtp_sink(tmp_path) as port:
        with pytest.raises(UserError) as caught:
            welcome_by(port)
    assert isinstance(caught.value, welcome.NotNow) is again
    assert "bob@example.org" not in str(caught.value)


def test_welcome_without_a_mail_server_is_for_later(tmp_path: Path) -> None:
    with services.smtp_sink(tmp_path) as port:
        pass
    with pytest.raises(welcome.NotNow, match="cannot be reached"):
        welcome_by(port)


# -- the settings


def test_secret_key_is_one_for_all_processes_and_private(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(settings.secret_key(tmp_path / "new")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 20
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert (tmp_path / "new" / "secret_key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["secret_key"]


def test_origin_has_the_port_and_no_user() -> None:
    assert settings.origin("http://me:you@Api.Example.com:8080/x") == "http://api.example.com:8080"
    assert settings.origin("https://api.example.com:443/x") == "https://api.example.com"
