from __future__ import annotations

from pathlib import Path

import pytest

from flask_offload import PayloadTooLarge
from flask_offload._store import FileStore, safe_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.pdf", "report.pdf"),
        ("../../x", "x"),
        ("..", "file"),
        ("", "file"),
        ("/etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        (".htaccess", "htaccess"),
        ("a\x00b\nc.txt", "abc.txt"),
        ('<img src="x">.svg', "img src=x.svg"),
        ("Übersicht 2026 - März.pdf", "Übersicht 2026 - März.pdf"),
        ("exe\u202etxt.pdf", "exetxt.pdf"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
    ],
)
def test_safe_name(name: str, expected: str) -> None:
    assert safe_name(name) == expected
    assert safe_name(safe_name(name)) == safe_name(name)


@pytest.mark.parametrize("job_id", ["plain", "../../up", "a/b", "x" * 10_000, "nul\x00"])
def test_save_open_remove(tmp_path: Path, job_id: str) -> None:
    store = FileStore(str(tmp_path / "files"), 100)
    source = tmp_path / "source"
    source.write_bytes(b"from a path")
    assert store.save(job_id, "../a.txt", b"bytes")["name"] == "a.txt"
    assert store.save(job_id, "b.bin", source)["size"] == 11
    with store.open(job_id, "a.txt") as file:
        assert file.read() == b"bytes"
    with store.open(job_id, "b.bin") as file:
        assert file.read() == b"from a path"
    assert not list(tmp_path.rglob("*.part"))
    store.remove(job_id)
    store.remove(job_id)
    with pytest.raises(FileNotFoundError):
        store.open(job_id, "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "source"]


def test_cap(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path), 10)
    with pytest.raises(PayloadTooLarge, match="OFFLOAD_MAX_FILE allows 10"):
        store.save("job", "a", b"x" * 11)
    assert list(tmp_path.iterdir()) == []


def test_other_file_systems() -> None:
    store = FileStore("memory://jobs", 100)
    store.save("job", "a.txt", b"far away")
    with store.open("job", "a.txt") as file:
        assert file.read() == b"far away"
    store.remove("job")
