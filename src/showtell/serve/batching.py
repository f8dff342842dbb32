"""Images of different requests, captioned together: each model has a queue, and threads that empty it.

A thread takes whatever waits, up to a batch, but leaves the other idle threads their share. Images that arrive while
all threads are busy form the next batch, so under load batches grow by themselves and no image waits for its batch to
fill. Only an idle thread holds an image back, for `wait` seconds at most, while more images are on their way (their
request has been read and they are being decoded) or likely to come: as many as in the last batch, whose clients may
send their next request. A client that is alone never waits.

All images of a batch go through the encoder together; those with the same options are searched together. The search
of an image depends only on its own pixels, options and number, so its captions are the same in any batch.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from showtell.captioner import Caption, Captioner
from showtell.images.decode import Pixels
from showtell.search.options import SearchOptions

LONGEST_RETRY = 60  # seconds


class QueueFullError(Exception):
    """The queue has no room for so many images; in `retry_after` seconds it may have."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full for {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class Job:
    """One image that waits for its captions."""

    picture: Pixels
    """`[S, S, 3]`, as `images.resize` makes it."""
    number: int
    """The image's place in its request: together with the seed, it determines the image's samples."""
    options: SearchOptions
    attention: bool
    captions: Future[list[Caption]] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Captions what is put into it, on threads of its own, from `start` to `close`.

    It has as many threads as the engine can run batches at a time on the machine's cores.

    Args:
        captioner: the model.
        batch_size: images captioned together.
        wait: seconds that an image is held back for others.
        capacity: images that may wait or be on their way.
        observe: called for each batch, with its number of images and the seconds that it took.
    """

    def __init__(
        self,
        captioner: Captioner,
        *,
        batch_size: int,
        wait: float,
        capacity: int,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self.captioner = captioner
        self.batch_size, self.wait, self.capacity, self.observe = batch_size, wait, capacity, observe
        self.seconds_an_image = 0.02  # measured from the first batch on; only Retry-After depends on it
        self._jobs: deque[Job] = deque()
        self._on_their_way = 0
        self._last = 1  # images in the last batch, or one fewer
        self._idle = 0  # threads without a batch
        self._open = False
        self._changed = threading.Condition()
        self._collecting = threading.Lock()  # two threads would each wait for half of a batch
        self._threads: list[threading.Thread] = []

    @property
    def waiting(self) -> int:
        """Images that wait, and those on their way."""
        return len(self._jobs) + self._on_their_way

    @property
    def alive(self) -> bool:
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        self._open = True
        self._threads = [
            threading.Thread(target=self._work, name="showtell-captions", daemon=True)
            for _ in range(self.captioner.engine.batches_at_a_time)
        ]
        for thread in self._threads:
            thread.start()

    def reserve(self, images: int) -> None:
        """Announce images that are on their way: each must then be `put`, or given up by `release`.

        Raises:
            QueueFullError: there is no room for so many.
        """
        with self._changed:
            if self.waiting + images > self.capacity:
                seconds = ceil(self.seconds_an_image * self.waiting)
                raise QueueFullError(min(max(1, seconds), LONGEST_RETRY))
            self._on_their_way += images

    def release(self, images: int = 1) -> None:
        """Give up announced images."""
        with self._changed:
            self._on_their_way -= images
            self._changed.notify()

    def put(self, job: Job) -> None:
        """Queue an announced image."""
        with self._changed:
            self._on_their_way -= 1
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Finish what is in the queue, then stop; blocks until then."""
        with self._changed:
            self._open = False
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """A thread: batch after batch, until closed."""
        while batch := self._next_batch():
            begin = time.monotonic()
            jobs = [job for job in batch if job.captions.set_running_or_notify_cancel()]  # some gave up waiting
            if jobs:
                self._caption(jobs)
                seconds = time.monotonic() - begin
                self.seconds_an_image += 0.2 * (seconds / len(jobs) / len(self._threads) - self.seconds_an_image)
                self.observe(len(jobs), seconds)

    def _next_batch(self) -> list[Job]:
        """Wait for the next images; none when closed."""
        with self._changed:
            self._idle += 1
        with self._collecting, self._changed:
            while self._open and not self._jobs:
                self._changed.wait()
            while self._open and len(self._jobs) < self.batch_size:
                left = self._jobs[0].since + self.wait - time.monotonic()
                if left <= 0 or not (self._on_their_way or len(self._jobs) < self._last):
                    break
                self._changed.wait(left)
            share, over = divmod(len(self._jobs), self._idle)
            self._last = min(self.batch_size, share)
            self._idle -= 1
            return [self._jobs.popleft() for _ in range(min(self.batch_size, share + bool(over)))]

    def _caption(self, jobs: list[Job]) -> None:
        """Caption a batch; an error is the outcome of the images that it affects."""
        engine = self.captioner.engine
        try:
            memory = self.captioner.encode([job.picture for job in jobs])
        except Exception as error:
            _fail(jobs, error)
            return
        alike: dict[SearchOptions, list[int]] = {}
        for place, job in enumerate(jobs):
            alike.setdefault(job.options, []).append(place)
        for options, places in alike.items():
            group = [jobs[place] for place in places]
            try:
                theirs = memory
                if len(alike) > 1:
                    theirs, _ = engine.select(memory, engine.start(memory), np.array(places))
                found = self.captioner.caption_memory(
                    theirs,
                    options,
                    numbers=[job.number for job in group],
                    attention=any(job.attention for job in group),
                )
            except Exception as error:
                _fail(group, error)
                continue
            for job, captions in zip(group, found, strict=True):
                job.captions.set_result(captions)


def _fail(jobs: list[Job], error: Exception) -> None:
    for job in jobs:
        job.captions.set_exception(error)
