"""Stopping: once asks, twice stops."""

import os
import signal

import pytest

from trainshed.plan.interrupts import Interrupted, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_in_a_graceful_block_only_asks(number):
    stop = StopRequest()
    before = signal.getsignal(number)
    with stop.listening(), stop.graceful():
        assert not stop.requested
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.signum == number
    assert signal.getsignal(number) is before


def test_the_second_signal_stops_at_once():
    stop = StopRequest()
    with stop.listening(), stop.graceful():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_a_graceful_block_the_first_signal_stops():
    stop = StopRequest()
    with stop.listening():
        with stop.graceful():
            pass
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_is_no_error():
    assert not issubclass(Interrupted, Exception)
    assert issubclass(Interrupted, KeyboardInterrupt)
