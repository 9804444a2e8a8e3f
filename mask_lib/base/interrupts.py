"""Interrupts that wait until a step is finished, and errors that let go of what they hold."""

import contextlib
import functools
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator

# By which people and batch systems, the latter before a limit, ask a job to end.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)
# By number: with no call between a look at what came and noting this one, no other signal's handler comes between.
NAMED = {int(one): one for one in SIGNALS}


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within it a first SIGINT only makes the function that is given true, a second one interrupts as ever.

    So do other signals to end which nothing handles, such as SLURM's SIGTERM. Raises KeyboardInterrupt on leaving if a
    signal was not acted on. In other threads than the main one, where no signal arrives, the function stays false.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    numbers = [number for number in SIGNALS if number == signal.SIGINT or signal.getsignal(number) == signal.SIG_DFL]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        # Of a kernel that such a signal ends here, which its runner passes on, none interrupts the report.
        ends = bool(os.environ.get("MASK_LIB_HEADLESS")) and bool(set(asked) - {signal.SIGINT})
        for number, handler in before.items():
            earlier = signal.default_int_handler if handler is None else handler
            signal.signal(number, signal.SIG_IGN if ends else earlier)
    if asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def of_signals() -> Iterator[list[signal.Signals]]:
    """Within it all `SIGNALS` interrupt, or wait where SIGINT is `deferred`; gives those that came, less SIGINT."""
    came: list[signal.Signals] = []

    def interrupt(number: int, frame: object) -> None:
        if number not in came:  # at a time limit SLURM sends SIGTERM twice, for the job and for its step
            came.append(NAMED[number])
            signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS if number != signal.SIGINT}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def released_on_error(function: Callable) -> Callable:
    """A function whose errors let go of its variables: a notebook keeps the last error, and so photos and network."""

    @functools.wraps(function)
    def released(*given, **named):
        try:
            return function(*given, **named)
        except BaseException as error:
            inner: BaseException | None = error
            while inner is not None:
                traceback.clear_frames(inner.__traceback__ if inner is not error else inner.__traceback__.tb_next)
                inner = inner.__cause__ or inner.__context__
            raise

    return released
