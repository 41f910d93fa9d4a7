"""The files of a job, over HTTP."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from web_app import Site, start

pytest_plugins = ["web_fixtures"]


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("r.pdf", "application/pdf", "inline"),
        ("r.png", "image/png", "inline"),
        ("r.txt", "text/plain; charset=utf-8", "inline"),
        ("r.html", "text/html; charset=utf-8", "attachment"),
        ("r.svg", "image/svg+xml; charset=utf-8", "attachment"),
        ("r.js", "text/javascript; charset=utf-8", "attachment"),
        ("r.unknown", "application/octet-stream", "attachment"),
    ],
)
def test_only_what_cannot_run_is_shown(site: Site, name: str, kind: str, disposition: str) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.attach(job_id, name, b"content")
    (file,) = visitor.get(f"/jobs/{job_id}").json()["files"]
    response = visitor.get(file["url"])
    assert response.content == b"content"
    headers = response.headers
    assert headers["Content-Type"] == kind
    assert headers["Content-Disposition"] == f"{disposition}; filename={name}"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == "7"
    policy = headers["Content-Security-Policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", "frame-ancestors 'self'"]
    # A sandbox would keep the browser's own viewer of PDFs from starting.
    assert ("sandbox" in policy) == (name != "r.pdf")


@pytest.mark.parametrize(
    "name", ["Bericht ü.txt", "a;b=c.txt", "50% #1?.txt", "日本.txt", "a'b.txt"]
)
def test_names_of_files(site: Site, name: str) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    kept = site.attach(job_id, f"../../{name}", b"x")["name"]
    (file,) = visitor.get(f"/jobs/{job_id}").json()["files"]
    response = visitor.get(file["url"])
    assert response.status_code == 200
    disposition = response.headers["Content-Disposition"]
    plain = re.search(r"filename=(?:\"(.*)\"|(\S+))$", disposition)
    encoded = f"filename*=UTF-8''{quote(kept, safe='!#$&+^_`{}~-.')}"
    assert encoded in disposition or (plain and kept in plain.groups())


def test_a_part_of_a_file(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.attach(job_id, "r.pdf", bytes(range(100)))
    url = f"/jobs/{job_id}/files/r.pdf"
    part = visitor.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["Content-Range"] == "bytes 10-19/100"
    assert visitor.get(url, headers={"Range": "bytes=200-"}).status_code == 416
    head = visitor.head(url)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "100")


def test_a_file_that_is_not_there(site: Site) -> None:
    visitor = site.visitor()
    job_id = start(site, visitor)
    site.attach(job_id, "r.pdf", b"x")
    assert visitor.get(f"/jobs/{job_id}/files/other.pdf").status_code == 404
    site.engine.files.remove(job_id)
    assert visitor.get(f"/jobs/{job_id}/files/r.pdf").status_code == 404
