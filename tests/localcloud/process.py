"""The end of a command of the local clouds: by a signal, or because its output is closed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def quiet_end() -> Iterator[None]:
    """End the process on a signal, with its cleanup, once, and without a traceback.

    The exit status is 128 plus the signal's number. It is 0 after Ctrl-C, since make, which gets the interrupt too,
    would report any other; and where the output is closed, as by `head`. Characters that the output's encoding lacks
    are replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
            signal.signal(number, _end)
    try:
        yield
    except BrokenPipeError:
        # Python flushes standard output once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _end(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # no further one interrupts the cleanup
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)
