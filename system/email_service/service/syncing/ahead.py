"""One item ahead: a thread makes the next item while the caller uses the present one. Called by ``mailbox``.

Rule 1: never more than one item waits, and none beside a heavy one, so memory is bounded.
Rule 2: what the thread raises, the caller sees, in its turn; a caller that leaves ends the thread.
Rule 3: signals interrupt the caller alone: Python delivers them to the main thread, so the soft time limit never
falls into the midst of a reply or of a message that is being parsed.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

_T = TypeVar("_T")


class _End:
    """What comes after the last item: nothing, or what the thread raised."""

    def __init__(self, error: BaseException | None) -> None:
        self.error: Final = error


class Ahead(Generic[_T]):
    """Runs an iterator one item ahead. Leaving waits for the thread: end first whatever the iterator may wait for."""

    def __init__(self) -> None:
        self._made: queue.SimpleQueue[_T | _End] = queue.SimpleQueue()
        #: One permit: the thread may make one item that nobody has taken.
        self._wanted = threading.Semaphore(1)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._wanted.release()
        if self._thread is not None:
            self._thread.join()

    def over(self, items: Iterator[_T], *, is_heavy: Callable[[_T], bool] = lambda _: False) -> Iterator[_T]:
        """The items, in their order; while a heavy one is used, the next is not made.

        Raises:
            BaseException: whatever making an item raised.
        """
        # Spans and log lines of the thread belong to the caller's.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._make, items), name="ahead", daemon=True)
        self._thread.start()
        while not isinstance(item := self._made.get(), _End):
            heavy = is_heavy(item)
            if not heavy:
                self._wanted.release()
            yield item
            del item
            if heavy:
                self._wanted.release()
        if item.error is not None:
            raise item.error

    def _make(self, items: Iterator[_T]) -> None:
        try:
            while self._wanted.acquire() and not self._stopped.is_set():
                self._made.put(next(items))
        except StopIteration:
            self._made.put(_End(None))
        except BaseException as err:  # noqa: BLE001  # it is the caller's to handle
            self._made.put(_End(err))
