import jax.numpy as jnp
import pytest

from sgm.training import waits
from sgm.training.waits import Waits

pytestmark = pytest.mark.quick


class Clock:
    """Time that goes by only where a test says so."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ("load", "step", "idle"),
    [
        (8.0, 10.0, [8.0, 0.0, 0.0, 0.0]),  # The loop waits for batches, but the device is busy meanwhile.
        (10.0, 4.0, [10.0, 6.0, 6.0, 6.0]),
        (0.0, 10.0, [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_only_time_counts_in_which_the_device_is_idle(monkeypatch, load, step, idle):
    clock = Clock()
    monkeypatch.setattr(waits, "time", clock)
    monkeypatch.setattr(waits, "_end", float)

    def loader():
        while True:
            clock.now += load
            yield

    batches, end = Waits(loader()), 0.0
    for _ in idle:
        next(batches)
        end = max(end, clock.now) + step
        batches.stepped(jnp.float32(end))
    clock.now = end  # A look at the metrics waits for the last step.
    assert batches.share() == pytest.approx(sum(idle) / end, rel=1e-6)
    next(batches)
    batches.stepped(jnp.float32(clock.now + 10.0))
    clock.now += 10.0
    assert batches.share() == pytest.approx(load / (load + 10.0), rel=1e-6)  # Counted from the last look on.


def test_the_words_of_the_bar(monkeypatch):
    batches = Waits(iter(()))
    for share, words in ((0.0, ""), (0.1, ""), (0.404, ", waits for data 40%")):
        monkeypatch.setattr(batches, "share", lambda share=share: share)
        assert batches.text() == words
    with pytest.raises(StopIteration):
        next(batches)
