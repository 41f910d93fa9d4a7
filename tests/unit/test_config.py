from __future__ import annotations

import typing as t
from datetime import timedelta

import pytest
from flask import Flask

from flask_offload import ConfigError, Offload
from flask_offload._config import READERS, Settings


def settings(**config: t.Any) -> Settings:
    app = Flask("shop.web")
    app.config.update(config)
    return Settings.from_app(app)


def test_defaults() -> None:
    found = settings()
    assert found.url is None
    assert found.namespace == "web"
    assert found.publish_timeout == 2
    assert found.grace == 25
    assert found.max_deliveries == 5
    assert (found.max_payload, found.max_result, found.max_file) == (10**6, 10**6, 50 * 10**6)
    assert found.retain("succeeded") == 86_400
    assert found.retain("failed") == found.retain("cancelled") == 7 * 86_400
    assert found.retain("dead") == 30 * 86_400
    assert found.files_url == str(found.directory / "files")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"OFFLOAD_ULR": "x"}, "Unknown setting OFFLOAD_ULR. Did you mean OFFLOAD_URL?"),
        ({"OFFLOAD_PUBLISH_TIMOUT": 1}, "Did you mean OFFLOAD_PUBLISH_TIMEOUT?"),
        ({"CELERY_BROKER_URL": "x"}, "CELERY_BROKER_URL is not read.*OFFLOAD_BROKER_URL"),
        ({"CELERY_RESULT_BACKEND": "x"}, "CELERY_RESULT_BACKEND is not read.*OFFLOAD_URL"),
        ({"OFFLOAD_URL": "mysql://x"}, "OFFLOAD_URL starts with 'mysql'. It must be one of: redis"),
        ({"OFFLOAD_URL": "amqp://x"}, "OFFLOAD_URL starts with 'amqp'"),
        ({"OFFLOAD_URL": "localhost:6379"}, "OFFLOAD_URL starts with 'localhost'"),
        ({"OFFLOAD_URL": "redis://:pa/ss@host"}, "OFFLOAD_URL has no number for a port"),
        ({"OFFLOAD_ALLOW_EVICTION": "perhaps"}, "OFFLOAD_ALLOW_EVICTION must be True or False"),
        ({"OFFLOAD_PUBLISH_TIMEOUT": 0}, "OFFLOAD_PUBLISH_TIMEOUT must be seconds above 0"),
        ({"OFFLOAD_GRACE": "soon"}, "OFFLOAD_GRACE must be seconds above 0"),
        ({"OFFLOAD_MAX_DELIVERIES": 1.5}, "OFFLOAD_MAX_DELIVERIES must be a whole number"),
        ({"OFFLOAD_MAX_PAYLOAD": True}, "OFFLOAD_MAX_PAYLOAD must be a whole number"),
        ({"OFFLOAD_JOBS_PREFIX": "jobs"}, "OFFLOAD_JOBS_PREFIX must start with a slash"),
        ({"OFFLOAD_JOBS_PREFIX": "/"}, "OFFLOAD_JOBS_PREFIX must start with a slash"),
        ({"OFFLOAD_MAX_WAIT": -1}, "OFFLOAD_MAX_WAIT must be seconds"),
        ({"OFFLOAD_REQUEST_HEADERS": "X-A"}, "OFFLOAD_REQUEST_HEADERS must be a list of names"),
        ({"OFFLOAD_RETENTION": {"done": 1}}, "OFFLOAD_RETENTION has no state 'done'"),
        ({"OFFLOAD_RETENTION": {"failed": -1}}, "OFFLOAD_RETENTION.'failed'. must be seconds"),
        ({"CELERY": "redis://"}, "CELERY must be a dict"),
        ({"CELERY": {"broker_url": "amqp://x"}, "OFFLOAD_BROKER_URL": "amqp://y"}, "differ"),
    ],
)
def test_bad_settings_name_what_mends_them(config: dict[str, t.Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**config)


@pytest.mark.parametrize(
    ("given", "meant"), [(True, True), ("True", True), ("1", True), (False, False), ("no", False)]
)
def test_flag_may_come_from_the_environment(given: object, meant: bool) -> None:
    assert settings(OFFLOAD_ALLOW_EVICTION=given).allow_eviction is meant


def test_no_wait_and_more_headers() -> None:
    for zero in (0, "0", timedelta(0)):
        assert settings(OFFLOAD_MAX_WAIT=zero).max_wait == 0
    found = settings(OFFLOAD_REQUEST_HEADERS=["X-Api-Version"])
    assert found.request_headers == ("X-Api-Version",)


def test_none_is_not_set() -> None:
    assert settings(**dict.fromkeys(READERS)) == settings()


def test_retention_for_all_or_for_some_states() -> None:
    assert settings(OFFLOAD_RETENTION=60).retain("failed") == 60
    found = settings(OFFLOAD_RETENTION={"succeeded": timedelta(hours=1)})
    assert (found.retain("succeeded"), found.retain("failed")) == (3600, 7 * 86_400)


def test_celery_dict_as_in_the_docs_of_flask() -> None:
    found = settings(
        CELERY={
            "broker_url": "amqp://localhost",
            "result_backend": "redis://localhost",
            "task_ignore_result": True,
        }
    )
    assert found.url == "redis://localhost"
    assert found.broker_url == "amqp://localhost"
    assert found.celery == {"task_ignore_result": True}
    one = settings(CELERY={"broker_url": "redis://localhost/1"})
    assert (one.url, one.broker_url) == ("redis://localhost/1", "redis://localhost/1")


@pytest.mark.parametrize(
    ("celery", "message"),
    [
        ({"task_ack_late": True}, "unknown key 'task_ack_late'. Did you mean 'task_acks_late'?"),
        ({"accept_content": ["pickle"]}, "'accept_content'. may hold 'json' only"),
        ({"task_serializer": "pickle"}, "'task_serializer'. must be 'json'"),
    ],
)
def test_celery_settings_are_checked(celery: dict[str, t.Any], message: str) -> None:
    app = Flask("app")
    app.config.update(SECRET_KEY="x", CELERY=celery)
    with pytest.raises(ConfigError, match=message):
        Offload(app)


def test_secret_key_is_needed_with_a_server_of_ones_own() -> None:
    app = Flask("app")
    app.config["OFFLOAD_URL"] = "redis://localhost"
    with pytest.raises(ConfigError, match="SECRET_KEY is not set"):
        Offload(app)


def test_prefix_in_use() -> None:
    app = Flask("app")
    app.add_url_rule("/jobs/<name>", view_func=lambda name: name)
    with pytest.raises(ConfigError, match="OFFLOAD_JOBS_PREFIX"):
        Offload(app)
    assert "offload" not in app.extensions


def test_two_extensions_on_one_app() -> None:
    app = Flask("app")
    Offload(app)
    with pytest.raises(ConfigError, match="has an Offload already"):
        Offload(app)
