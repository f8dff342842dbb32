"""Micro-batching: together as alone, bounded, and nobody's mistake is another's."""

import threading
import time

import numpy as np
import pytest

from showtell.errors import UsageError
from showtell.images.decode import resize
from showtell.serve.batching import Batcher, Job, QueueFullError
from tests.serve.serving import GatedEngine, dreaming_captioner, fake_captioner, noise, until

BEAM, WIDE = {"beam": 3, "num": 3}, {"beam": 5, "num": 2, "length_penalty": 0.0}
SAMPLE = {"sample": True, "num": 3, "seed": 5}


@pytest.fixture
def batcher_of():
    made = []

    def make(captioner, **values) -> Batcher:
        made.append(Batcher(captioner, **({"batch_size": 16, "wait": 0.0, "capacity": 100} | values)))
        made[-1].start()
        return made[-1]

    yield make
    for batcher in made:
        gate = getattr(batcher.captioner.engine, "gate", None)
        if gate:
            gate.set()
        batcher.close()


def job(captioner, image=0, number=0, attention=False, **options) -> Job:
    picture = resize(noise(image), captioner.config.preprocessing)
    return Job(picture, number, captioner.options(**options), attention)


def queue(batcher, *jobs) -> None:
    for each in jobs:
        batcher.reserve(1)
        batcher.put(each)


def test_captions_are_those_of_each_image_alone(batcher_of):
    """Whoever else is in the batch, and whatever they asked for."""
    captioner = dreaming_captioner()
    batcher = batcher_of(captioner)
    asked = [(seed, seed % 3, seed % 2 == 0, (BEAM, WIDE, SAMPLE, BEAM)[seed % 4]) for seed in range(24)]
    jobs = [job(captioner, seed, number, attention, **options) for seed, number, attention, options in asked]
    queue(batcher, *jobs)
    together = [each.captions.result(20) for each in jobs]
    assert max(captioner.engine.batches) > 1
    texts = set()
    for found, (seed, number, attention, options) in zip(together, asked, strict=True):
        [alone] = captioner.stream([noise(seed)], numbers=[number], attention=attention, **options)
        assert [c.text for c in found] == [c.text for c in alone]
        for ours, theirs in zip(found, alone, strict=True):
            assert ours.log_prob == pytest.approx(theirs.log_prob, rel=1e-6)
            assert ours.word_log_probs == pytest.approx(theirs.word_log_probs, rel=1e-5, abs=1e-6)
            if attention:
                np.testing.assert_allclose(ours.attention, theirs.attention, rtol=1e-5)
        texts.add(found[0].text)
    assert len(texts) > 10, "the images must be captioned differently, or this shows nothing"


def test_what_waits_is_encoded_together_whatever_its_options(batcher_of):
    captioner = fake_captioner(GatedEngine)
    batcher = batcher_of(captioner)
    first = job(captioner)
    queue(batcher, first)
    assert captioner.engine.entered.wait(20)
    later = [job(captioner, beam=1 + place % 3) for place in range(6)]
    queue(batcher, *later)
    captioner.engine.gate.set()
    for each in (first, *later):
        assert each.captions.result(20)
    assert captioner.engine.batches == [1, 6]


def test_a_batch_is_no_larger_than_asked(batcher_of):
    captioner = fake_captioner(GatedEngine)
    batcher = batcher_of(captioner, batch_size=4)
    queue(batcher, job(captioner))
    assert captioner.engine.entered.wait(20)
    later = [job(captioner) for _ in range(9)]
    queue(batcher, *later)
    captioner.engine.gate.set()
    assert all(each.captions.result(20) for each in later)
    assert captioner.engine.batches == [1, 4, 4, 1]


def test_an_engine_of_one_thread_works_on_several_batches(batcher_of, monkeypatch):
    """And they are whole: threads that wait for images do not share them out among themselves."""
    captioner = fake_captioner(GatedEngine)
    captioner.engine.batches_at_a_time = 2
    batcher = batcher_of(captioner, wait=30, batch_size=4)
    working, count = threading.Semaphore(0), captioner.engine.encode

    def encode(images):
        working.release()
        return count(images)

    monkeypatch.setattr(captioner.engine, "encode", encode)
    batcher.reserve(8)
    jobs = [job(captioner) for _ in range(8)]
    for each in jobs:
        batcher.put(each)
    assert all(working.acquire(timeout=20) for _ in range(2))
    captioner.engine.gate.set()
    assert all(each.captions.result(20) for each in jobs)
    assert captioner.engine.batches == [4, 4]


def test_idle_threads_share_what_waits(batcher_of):
    """A batch of all would leave cores idle."""
    captioner = fake_captioner(GatedEngine)
    captioner.engine.batches_at_a_time = 2
    batcher = batcher_of(captioner, wait=30)
    until(lambda: batcher._idle == 2)
    jobs = [job(captioner) for _ in range(7)]
    batcher.reserve(7)
    for each in jobs:
        batcher.put(each)
    until(lambda: batcher._idle == 0)
    captioner.engine.gate.set()
    assert all(each.captions.result(20) for each in jobs)
    assert sorted(captioner.engine.batches) == [3, 4]


def test_an_image_that_is_alone_does_not_wait(batcher_of):
    captioner = fake_captioner()
    alone = job(captioner)
    queue(batcher_of(captioner, wait=60), alone)
    assert alone.captions.result(20)


def test_an_image_waits_for_one_on_its_way_but_not_for_ever(batcher_of):
    captioner = fake_captioner()
    batcher = batcher_of(captioner, wait=0.3)
    batcher.reserve(2)
    first = job(captioner)
    begin = time.monotonic()
    batcher.put(first)
    first.captions.result(20)
    assert time.monotonic() - begin > 0.25
    batcher.release()
    assert batcher.waiting == 0


def test_who_is_on_the_way_shares_the_batch(batcher_of):
    captioner = fake_captioner()
    batcher = batcher_of(captioner, wait=30)
    batcher.reserve(3)
    jobs = [job(captioner), job(captioner)]
    batcher.put(jobs[0])
    time.sleep(0.05)
    batcher.release()  # the third can't be read
    batcher.put(jobs[1])
    assert all(each.captions.result(20) for each in jobs)
    assert captioner.engine.batches == [2]


def test_clients_of_the_last_batch_are_expected_again(batcher_of):
    captioner = fake_captioner()
    batcher = batcher_of(captioner, wait=2)
    for _ in range(2):
        batcher.reserve(3)
        jobs = [job(captioner) for _ in range(3)]
        for each in jobs:
            batcher.put(each)
        assert all(each.captions.result(20) for each in jobs)
    second = [job(captioner) for _ in range(3)]
    for each in second:
        queue(batcher, each)
        time.sleep(0.03)
    assert all(each.captions.result(20) for each in second)
    assert captioner.engine.batches == [3, 3, 3]
    for waits in (True, False):  # two of them have left: that is waited for once
        begin = time.monotonic()
        last = job(captioner)
        queue(batcher, last)
        last.captions.result(20)
        assert (time.monotonic() - begin > 1.9) == waits


def test_the_queue_is_bounded(batcher_of):
    captioner = fake_captioner(GatedEngine)
    batcher = batcher_of(captioner, capacity=4)
    batcher.reserve(3)
    with pytest.raises(QueueFullError) as full:
        batcher.reserve(2)
    assert 1 <= full.value.retry_after <= 60
    batcher.release(3)
    batcher.reserve(4)


def test_who_gave_up_is_not_captioned(batcher_of):
    captioner = fake_captioner(GatedEngine)
    batcher = batcher_of(captioner)
    first, gone, third = (job(captioner) for _ in range(3))
    queue(batcher, first)
    assert captioner.engine.entered.wait(20)
    queue(batcher, gone, third)
    assert gone.captions.cancel()
    captioner.engine.gate.set()
    assert third.captions.result(20)
    assert captioner.engine.batches == [1, 1]


def test_a_failing_search_is_the_failure_of_those_who_asked_for_it(batcher_of, monkeypatch):
    """And the thread lives on."""
    captioner = dreaming_captioner()
    whole = captioner.caption_memory

    def fragile(memory, options, **values):
        if options.beam == 2:
            raise UsageError("no.")
        return whole(memory, options, **values)

    monkeypatch.setattr(captioner, "caption_memory", fragile)
    batcher = batcher_of(captioner)
    good, bad = job(captioner), job(captioner, beam=2)
    batcher.reserve(2)
    batcher.put(good)
    batcher.put(bad)
    assert good.captions.result(20)
    with pytest.raises(UsageError):
        bad.captions.result(20)


def test_a_failing_encoder_fails_its_batch_and_no_more(batcher_of, monkeypatch):
    captioner = fake_captioner()
    batcher = batcher_of(captioner)
    encode = captioner.engine.encode
    monkeypatch.setattr(captioner.engine, "encode", lambda images: 1 / 0)
    bad = job(captioner)
    queue(batcher, bad)
    with pytest.raises(ZeroDivisionError):
        bad.captions.result(20)
    monkeypatch.setattr(captioner.engine, "encode", encode)
    good = job(captioner)
    queue(batcher, good)
    assert good.captions.result(20)
    assert batcher.alive


def test_closing_finishes_what_waits():
    captioner = fake_captioner()
    batcher = Batcher(captioner, batch_size=2, wait=0.0, capacity=100)
    batcher.start()
    jobs = [job(captioner) for _ in range(20)]
    queue(batcher, *jobs)
    batcher.close()
    assert all(each.captions.done() for each in jobs)
    until(lambda: not batcher.alive)
