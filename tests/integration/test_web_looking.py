"""Looking changes nothing: no GET and no HEAD of any route leaves a trace on the server."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import redis

import tutorial
from web_house import House, Visit, methods, path, rules

if t.TYPE_CHECKING:
    from servers import Valkey

pytest_plugins = ["web_fixtures"]


def everything(client: redis.Redis, namespace: str = "") -> dict[t.Any, t.Any]:
    """All that the server keeps, or what it keeps of an app, and until when."""
    found = client.scan_iter(f"{{{namespace}}}:*" if namespace else "*", count=1_000)
    return {key: (client.dump(key), client.pexpiretime(key)) for key in found}


def test_looking_changes_nothing(house: House, valkey: Valkey) -> None:
    house.worker()
    house.run(house.others)
    house.say(house.others, "a line", done=1, total=2)
    urls = house.app.url_map.bind("localhost")
    asset = urls.build("offload.asset", {"version": "x", "name": "page.css"})
    visits = [
        Visit(house.ada),
        Visit(house.browser(), house.key(house.job)),
        Visit(house.browser()),
    ]
    with redis.Redis.from_url(valkey.url) as client:
        before = everything(client, house.settings.namespace)
        assert len(before) > 5
        for method in ("GET", "HEAD"):
            for visit in visits:
                for job_id in (house.job, house.others, "0" * 36):
                    for rule in rules(house.app):
                        url = path(house.app, rule, job_id, visit.key)
                        # Only to the headers: a stream goes on.
                        with visit.client.stream(method, url) as response:
                            assert response.status_code < 500
                            if method not in methods(rule):
                                assert response.status_code == 405
                assert visit.client.request(method, asset).status_code == 200
            assert everything(client, house.settings.namespace) == before


#: The tutorial's own, and what it shows of background views.
DEMO_LINKS = {
    "/long_running_task", "/long_running_task_celery", "/long_running_task_background"
}  # fmt: skip

#: Prints all addresses that an app knows.
PATHS = """
import json, sys, app
values = {"job_id": sys.argv[1], "name": "x", "version": "x", "filename": "app.css"}
urls = app.app.url_map.bind("localhost")
print(json.dumps(sorted({
    urls.build(rule.endpoint, {name: values[name] for name in rule.arguments}, method=method)
    for rule in app.app.url_map.iter_rules() for method in rule.methods - {"OPTIONS", "HEAD"}
})))
"""


def test_looking_at_the_tutorial_changes_nothing_but_by_its_links(
    own_valkey: Valkey, tmp_path: Path
) -> None:
    env = {"OFFLOAD_URL": own_valkey.url, "DEMO_SECONDS": "1"}
    folder = tutorial.copy_to(tmp_path)
    with (
        tutorial.web(folder, **env) as address,
        tutorial.Person(address) as person,
        redis.Redis.from_url(own_valkey.url) as client,
    ):
        page = person.get("/long_running_task_celery").text
        job_id = page.partition("/jobs/")[2][:36]
        assert person.get(f"/jobs/{job_id}").status_code == 200
        run = subprocess.run(
            [sys.executable, "-c", PATHS, job_id], cwd=folder,
            env=tutorial.environment(**env), check=True, capture_output=True, text=True,
        )  # fmt: skip
        paths: list[str] = json.loads(run.stdout.splitlines()[-1])
        assert len(paths) > 12
        before = everything(client)
        assert before
        for path in set(paths) - DEMO_LINKS:
            for method in ("GET", "HEAD"):
                with person.stream(method, path) as response:
                    assert response.status_code < 500, f"{method} {path}"
                assert everything(client) == before, f"{method} {path}"
