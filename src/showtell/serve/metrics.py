"""What `/metrics` says, in Prometheus's format: requests, images, batches, the queue, the process."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server; a process may have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("showtell_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self.request_seconds = Histogram(
            "showtell_request_seconds", "Time to the answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.images = Counter(
            "showtell_images", "Images captioned or refused", ["model", "outcome"], registry=self.registry
        )
        self.batches = Histogram(
            "showtell_batch_images", "Images captioned together", ["model"], buckets=BATCHES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "showtell_batch_seconds", "Time of a batch", ["model"], buckets=SECONDS, registry=self.registry
        )
        self.queue = Gauge(
            "showtell_queue_images", "Images that wait or are on their way", ["model"], registry=self.registry
        )

    def watch_queue(self, model: str, waiting: Callable[[], float]) -> None:
        """Ask `waiting` for the length of a model's queue whenever the metrics are read."""
        self.queue.labels(model).set_function(waiting)

    def batch(self, model: str, images: int, seconds: float) -> None:
        self.batches.labels(model).observe(images)
        self.batch_seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
