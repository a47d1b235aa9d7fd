"""Indexes that follow their catalogues: built anew beside the desks, one after the other."""

from __future__ import annotations

import threading

from palate.core.errors import ConfigError
from palate.serving.batching import ClosedError
from palate.serving.logs import Log
from palate.serving.served import Served


class Indexing:
    """Builds for whichever runs want it. A run stands in line once, however often its catalogue changes meanwhile. Its
    thread is one that no process waits for: an index takes minutes where there are many items."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._wanted: dict[Served, None] = {}
        self._closed = False
        self._news = threading.Condition()
        threading.Thread(target=self._serve, name="indexing", daemon=True).start()

    def want(self, served: Served) -> None:
        """Let the index of a run follow its vectors as they are now."""
        with self._news:
            self._wanted[served] = None
            self._news.notify()

    def close(self) -> None:
        """Begin nothing more."""
        with self._news:
            self._closed = True
            self._news.notify()

    def _serve(self) -> None:
        while (served := self._take()) is not None:
            self._build(served)

    def _take(self) -> Served | None:
        with self._news:
            while not self._wanted and not self._closed:
                self._news.wait()
            if self._closed:
                return None
            first = next(iter(self._wanted))
            del self._wanted[first]  # a change from now on stands in line again
            return first

    def _build(self, served: Served) -> None:
        try:
            recall = served.index_anew()
        except ConfigError as problem:
            said = f"{problem}; this run is searched exactly from now on"
            self._log.warning("index given up", run=served.name, said=said)
        except ClosedError:  # another run took its place
            pass
        except Exception:
            self._log.exception("bug", run=served.name)
        else:
            if recall is not None:
                self._log.info("index built", run=served.name, said=str(recall))
