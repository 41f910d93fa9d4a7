"""What of the standard library is small.

A program that sleeps is hardly more than the interpreter. The enums that :mod:`signal` makes, and
what they need, would be a quarter of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    try:
        import _signal as signal
    except ImportError:  # another Python
        import signal

__all__ = ["signal"]
