"""No encoder takes the machine for itself."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from av.video.frame import VideoFrame

from pipeline.config import EncoderConfig
from pipeline.media.scheduling import ordinary_threads, real_time_threads
from pipeline.media.video import FOREVER, Span, probe
from pipeline.media.video_decoding import decode
from pipeline.media.video_encoding import encode
from tests.videos import VideoKind, make_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SCHED_FIFO")


@pytest.fixture
def fifo() -> None:
    """This thread may become a real-time one, as root's may."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("real-time scheduling is not allowed here, to encoders neither")
    os.sched_setscheduler(0, policy, parameters)


def test_what_was_made_a_real_time_thread_inside_is_none_afterwards(fifo: None) -> None:
    known, done = threading.Event(), threading.Event()

    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        known.set()
        done.wait(60)

    thread = threading.Thread(target=work)
    with ordinary_threads():
        thread.start()
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        assert known.wait(60)
        assert real_time_threads() == {threading.get_native_id(), thread.native_id}
    try:
        assert real_time_threads() == set()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        done.set()
        thread.join()


def test_what_its_owner_made_a_real_time_thread_stays_one(fifo: None) -> None:
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        with ordinary_threads():
            pass
        assert real_time_threads() == {threading.get_native_id()}
    finally:
        os.sched_setscheduler(0, policy, parameters)


@pytest.mark.parametrize(("codec", "preset"), [("h264", "ultrafast"), ("hevc", "ultrafast"), ("av1", "12")])
def test_an_encoder_takes_its_turn_with_everything_else(codec: str, preset: str, fifo: None, tmp_path: Path) -> None:
    path = str(make_video(tmp_path / "in.mp4", VideoKind(frames=4)))
    info, found = probe(path, "in.mp4"), []

    def frames() -> Iterator[VideoFrame]:
        for frame in decode(path, "in.mp4", info, Span(-FOREVER, FOREVER)):
            yield frame
            found.append(real_time_threads())

    settings = EncoderConfig.model_validate({"codec": codec, "preset": preset})
    assert encode(str(tmp_path / "out.mp4"), frames(), info, settings) == 4
    assert found == [set()] * 4
    assert real_time_threads() == set()
