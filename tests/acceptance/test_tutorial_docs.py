"""The page "From the tutorial to here", walked: its app, changed by its diffs, really runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tutorial import EXAMPLE, Person, web, worker

PAGE = (EXAMPLE.parents[1] / "docs" / "tutorial.md").read_text()


def section(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}.*?(?=^## |\Z)", PAGE, re.M | re.S)
    assert match, title
    return match[0]


def block(title: str, language: str) -> str:
    """The last block of code in a section."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.M | re.S)
    assert found, title
    return str(found[-1])


def apply(diff: str, text: str) -> str:
    """Each paragraph of the diff changes lines that stand together in the text."""
    for part in re.split(r"\n\s*\n", diff.strip("\n")):
        lines = part.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"not once in the text:\n{old}\nThe text:\n{text}"
        text = text.replace(old, new)
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "templates").mkdir(parents=True)
    tasks = '<a href="/long_running_task_celery">Trigger Long Running Task with Celery</a>\n'
    (folder / "templates" / "tasks.html").write_text(apply(block("6.", "diff"), tasks))
    (folder / "templates" / "triggered.html").write_text(block("4.", "html"))
    code = block("Where the tutorial ends", "python")
    # The slow view of the tutorial, which the page does not repeat.
    slow = block("11.", "diff")
    code += "\n\n" + "".join(f"{line[1:]}\n" for line in slow.splitlines() if line[0] != "+")
    for step in ("1.", "2.", "4.", "5.", "11."):
        code = apply(block(step, "diff"), code)
        compile(code, f"step {step}", "exec")
    for work, less in (("range(15)", "range(1)"), ("sleep(15)", "sleep(0.1)")):
        code = code.replace(work, less)
    (folder / "app.py").write_text(code)
    return folder


def test_the_steps_lead_to_an_app_that_works(folder: Path) -> None:
    env = {"SECRET_KEY": "for this test"}
    with web(folder, **env) as address, worker(folder, **env) as running_worker:
        with Person(address) as person:
            page = person.get("/long_running_task_celery")
            link = re.search(r'href="(/jobs/[^"]+)"', page.text)
            assert link
            person.wait_for_job(link[1])
            assert "Sending email with celery" in person.read("/tasks")
            slow = person.get("/long_running_task")
            assert slow.status_code == 303
            person.wait_for_job(f"{slow.headers['Location']}?format=json")
            answer = person.get(slow.headers["Location"], follow_redirects=True)
            assert answer.text == "The task completed in 15 seconds!"
        assert "Task complete!" in running_worker.said


def test_the_first_step_replaces_the_old_setting() -> None:
    code = apply(block("1.", "diff"), block("Where the tutorial ends", "python"))
    assert 'app.config["OFFLOAD_URL"] = "redis://localhost:6379"' in code
    assert "CELERY_BROKER_URL" not in code


@pytest.mark.parametrize("title", ["8.", "9.", "10."])
def test_the_other_examples_are_python(title: str) -> None:
    compile(block(title, "python"), title, "exec")
