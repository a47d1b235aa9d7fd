"""Figures of a running server for Prometheus, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUESTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Labels are routes and names of runs: never what somebody sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "palate_requests_total", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "palate_request_seconds",
            "Seconds from request to answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "palate_batch_questions", "Questions answered in one go", ["run"], buckets=QUESTIONS, registry=self.registry
        )
        self.work = Histogram(
            "palate_batch_seconds", "Seconds of work on a batch", ["run"], buckets=SECONDS, registry=self.registry
        )
        self.waiting = Gauge("palate_waiting_questions", "Questions in the queue", ["run"], registry=self.registry)
        self.events = Counter("palate_events_total", "Events written", ["data"], registry=self.registry)
        self.reloads = Counter("palate_reloads_total", "Runs replaced", ["run", "outcome"], registry=self.registry)

        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        kind = (route, method, status)
        if kind not in self._answered:  # finding a figure by its labels costs more than counting
            self._answered[kind] = self.requests.labels(route, method, str(status)), self.seconds.labels(route)
        requests, taken = self._answered[kind]
        requests.inc()
        taken.observe(seconds)

    def seen(self, run: str) -> Callable[[int, float], None]:
        """What a run's desk tells of each batch."""
        batch, work = self.batch.labels(run), self.work.labels(run)

        def note(questions: int, seconds: float) -> None:
            batch.observe(questions)
            work.observe(seconds)

        return note

    def text(self) -> bytes:
        """The figures as Prometheus reads them."""
        return generate_latest(self.registry)
