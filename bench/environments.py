"""A virtual environment for each library that is compared with: ``python -m bench.environments``.

Celery and Flask-Offload share the one that this runs in, as they do in practice.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "ensure", "python_of"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"


def requirements_of(peer: str) -> Path:
    return ROOT / "bench" / "peers" / f"{peer}.txt"


def python_of(peer: str) -> Path:
    """The interpreter for a peer."""
    if not requirements_of(peer).exists():
        return Path(sys.executable)
    return FOLDER / peer / "bin" / "python"


def ensure(peer: str) -> None:
    """Make the environment of a peer, or bring it up to date."""
    requirements = requirements_of(peer)
    if not requirements.exists():
        return
    stamp = FOLDER / peer / "installed.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    print(f"Installing {peer} into {FOLDER.name}/{peer} ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER / peer)], check=True)
    pip = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    stamp.write_text(requirements.read_text())


def main() -> None:
    for found in sorted(ROOT.glob("bench/peers/*.txt")):
        ensure(found.stem)


if __name__ == "__main__":
    main()
