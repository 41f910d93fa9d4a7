"""The app of ``throughput.py``, for its worker."""

from __future__ import annotations

import os

from throughput import app_for

app = app_for(os.environ["SIDE"], os.environ["URL"])
