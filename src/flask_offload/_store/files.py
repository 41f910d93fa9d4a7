"""The files of jobs, in any file system that fsspec knows."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import re
import typing as t
import unicodedata
from pathlib import Path

from ..exceptions import PayloadTooLarge

__all__ = ["FileStore", "safe_name"]

CHUNK = 1 << 20
NAME_LIMIT = 120
#: A folder beside the files that are offered. No safe name begins with a dot.
PRIVATE = ".private"
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\u200e\u200f\u202a-\u202e\u2066-\u2069]')


def safe_name(name: str) -> str:
    """The last part of ``name``, fit for any file system and for a download header.

    >>> safe_name("../../etc/passwd")
    'passwd'
    """
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    name = _FORBIDDEN.sub("", name).strip().lstrip(".").rstrip(". ")
    stem, dot, suffix = name.rpartition(".")
    if len(name) > NAME_LIMIT:
        name = (stem or name)[: NAME_LIMIT - len(suffix) - 1][:NAME_LIMIT] + dot + suffix[:20]
    return name or "file"


class FileStore:
    """Keeps files by job and name.

    :param url: A folder, or a URL such as ``s3://bucket/folder``.
    :param max_size: Most bytes of one file.
    """

    def __init__(self, url: str, max_size: int) -> None:
        self._url = url
        self._max_size = max_size
        self._connected: tuple[t.Any, str] | None = None

    def _fs(self) -> tuple[t.Any, str]:
        # At the first use, so that an app which attaches nothing needs no credentials.
        connected = self._connected
        if connected is None:
            import fsspec  # the same: most apps attach nothing

            connected = self._connected = fsspec.url_to_fs(self._url)
        return connected

    def _folder(self, job_id: str) -> tuple[t.Any, str]:
        # Ids are the client's to choose; their digest is safe as the name of a folder.
        fs, root = self._fs()
        return fs, f"{root}/{hashlib.sha256(job_id.encode()).hexdigest()[:32]}"

    def save(
        self, job_id: str, name: str, data: bytes | str | os.PathLike[str]
    ) -> dict[str, t.Any]:
        """Keep ``data`` (bytes, or the path of a file) and say what was kept.

        :raises PayloadTooLarge: It is larger than ``OFFLOAD_MAX_FILE``.
        """
        name = safe_name(name)
        size = len(data) if isinstance(data, bytes) else Path(data).stat().st_size
        if size > self._max_size:
            raise PayloadTooLarge(
                f"The file {name!r} has {size:,} bytes. OFFLOAD_MAX_FILE allows {self._max_size:,}."
            )
        fs, folder = self._folder(job_id)
        fs.makedirs(folder, exist_ok=True)
        # Written aside and moved, so that nobody downloads half a file.
        part = f"{folder}/.{name}.part"
        with fs.open(part, "wb") as target:
            if isinstance(data, bytes):
                target.write(data)
            else:
                with Path(data).open("rb") as source:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
        fs.mv(part, f"{folder}/{name}")
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return {"name": name, "size": size, "content_type": content_type}

    def keep(
        self, job_id: str, name: str, data: bytes | t.IO[bytes], limit: int
    ) -> tuple[int, str]:
        """Keep what nobody may download: the body of a request, or of its response.

        :param name: One of our own; :meth:`open` finds no file of this kind by whatever name.
        :return: Size, and a digest of the content.
        :raises PayloadTooLarge: It has more than ``limit`` bytes.
        """
        fs, folder = self._folder(job_id)
        fs.makedirs(f"{folder}/{PRIVATE}", exist_ok=True)
        digest, size = hashlib.sha256(), 0
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        with fs.open(f"{folder}/{PRIVATE}/{name}", "wb") as target:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise PayloadTooLarge(f"A file has more than {limit:,} bytes.")
                digest.update(chunk)
                target.write(chunk)
        return size, digest.hexdigest()

    def kept(self, job_id: str, name: str) -> t.BinaryIO:
        """Open what :meth:`keep` kept.

        :raises FileNotFoundError: There is none.
        """
        fs, folder = self._folder(job_id)
        return t.cast("t.BinaryIO", fs.open(f"{folder}/{PRIVATE}/{name}", "rb"))

    def open(self, job_id: str, name: str) -> t.BinaryIO:
        """Open a file for reading.

        :raises FileNotFoundError: There is none.
        """
        fs, folder = self._folder(job_id)
        return t.cast("t.BinaryIO", fs.open(f"{folder}/{safe_name(name)}", "rb"))

    def remove(self, job_id: str) -> None:
        """Remove all files of a job."""
        fs, folder = self._folder(job_id)
        if fs.exists(folder):
            fs.rm(folder, recursive=True)
