# SPDX-License-Identifier: Apache-2.0
"""A node that plays a video, or a folder of images, as an image topic."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from dimp_ros.apps.demo.launch import SOURCE_PARAMETERS
from dimp_ros.images.video import BgrImage, Video, VideoFrame
from dimp_ros.ros_utils.messages import from_bgr
from dimp_ros.ros_utils.namesakes import DISCOVERY_SECONDS, conflicting_program
from dimp_ros.ros_utils.parameters import ParameterHandler
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos
from dimp_ros.ros_utils.spin import Finish, run

DEFAULT_RATE = 30.0
LATE_SECONDS = 0.5
"""What is later is not made up for."""


class VideoSource(Node):
    """Publishes a video on ``image`` at its rate, stamped with the time of publication.

    The timer runs on the steady clock: with simulated time it may be this very node that everybody waits for.

    :param finish: called with the exit code after the last image.
    """

    def __init__(self, finish: Finish, **node_options: Any) -> None:
        super().__init__("video_source", **node_options)
        self._finish = finish
        self._settings = ParameterHandler(self, SOURCE_PARAMETERS)
        self._settings.require_valid()
        first, last = self._settings["first_frame"], self._settings["last_frame"]
        if 0 <= last < first:
            raise ValueError(f"first_frame is {first}, but must not be after last_frame, which is {last}")
        self._video = Video(self._settings["video"])
        played = Path(self._video.source)
        told = ParameterDescriptor(description="Absolute path of the video that is played.", read_only=True)
        self.declare_parameter("video_path", str(played.absolute()) if played.exists() else "", told)
        self._frames = self._frames_from_first()
        self._next = next(self._frames, None)
        if self._next is None:
            raise ValueError(f"video {self._video.source!r} has no image {first} that OpenCV can read")
        self._playing = threading.Event()
        if not self._settings["paused"]:
            self._playing.set()
        self._frame: BgrImage | None = None
        self._begun = self._ended = False
        self.published = 0
        self._images = self.create_publisher(Image, "image", reliable_qos(10), **publisher_options())
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(SetBool, "~/set_playing", self._on_set_playing, callback_group=group)
        rate = self._settings["rate"] or self._video.fps or DEFAULT_RATE
        self._own_times = not self._settings["rate"] and self._video.fps is not None
        self._step = 1.0 / rate
        self._due = 0.0
        self._created = time.monotonic()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(self._step, self._on_timer, clock=clock)
        self.get_logger().info(f"{self._video.source}: {rate:g} images per second on {self._images.topic_name}")

    def _on_set_playing(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        (self._playing.set if request.data else self._playing.clear)()
        response.success, response.message = True, "playing" if request.data else "paused: the image is repeated"
        return response

    def _on_timer(self) -> None:
        if self._ended or not (self._begun or (self._subscribers_complete() and self._alone())):
            return
        self._begun = True
        if self._frame is None or self._playing.is_set():
            frame = self._next
            if frame is None:
                self._end(0)
                return
            self._frame = frame.image
            try:
                self._next = self._frame_after(frame)
            except (OSError, ValueError) as error:  # its file has gone since
                self.get_logger().error(f"the video cannot be played any more: {error}")
                self._end(1)
                return
        assert self._frame is not None
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._settings["frame_id"])
        self._images.publish(from_bgr(header, self._frame))
        self.published += 1

    def _subscribers_complete(self) -> bool:
        wanted, there = self._settings["wait_for_subscribers"], self._images.get_subscription_count()
        if there < wanted:
            text = f"waiting for {wanted} subscribers of {self._images.topic_name}, {there} so far"
            self.get_logger().info(text, throttle_duration_sec=5.0)
        return bool(there >= wanted)

    def _alone(self) -> bool:
        """Tell whether those that were waited for get no images of another source, whose subscribers they may be."""
        if not self._settings["wait_for_subscribers"]:
            return True
        if time.monotonic() < self._created + DISCOVERY_SECONDS:
            return False
        if other := conflicting_program(self, (), self._images.topic_name):
            self.get_logger().warning(f"waiting: {other}", throttle_duration_sec=5.0)
        return not other

    def _frames_from_first(self) -> Iterator[VideoFrame]:
        """Yield the frames that can be read, and log the others."""
        last = self._settings["last_frame"]
        for frame in self._video.frames(self._settings["first_frame"], None if last < 0 else last + 1):
            if frame.image is None:
                self.get_logger().error(f"image {frame.index} is left out: {frame.problem}")
            else:
                yield frame
        if self._video.damage:
            self.get_logger().error(self._video.damage, once=True)

    def _frame_after(self, frame: VideoFrame) -> VideoFrame | None:
        """Return the frame that follows, and set the timer to its time where that is the video's own."""
        following, step = next(self._frames, None), self._step
        if following is not None:
            step = following.seconds - frame.seconds
        elif self._settings["loop"]:
            self._frames = self._frames_from_first()
            following = next(self._frames, None)
        if self._own_times:
            now = time.monotonic()
            self._due = (self._due if abs(now - self._due) < LATE_SECONDS else now) + step
            self._timer.timer_period_ns = max(int((self._due - now) * 1e9), 1_000_000)
            self._timer.reset()
        return following

    def _end(self, code: int) -> None:
        self._ended = True
        self._images.wait_for_all_acked(Duration(seconds=1.0))
        self.get_logger().info(f"{self.published} images published")
        self._finish(code)

    def close(self) -> bool:
        """Nothing runs outside of the executor."""
        self._ended = True
        return True


def main(args: Sequence[str] | None = None) -> int:
    """Play the video until its end, SIGINT or SIGTERM."""
    return run(VideoSource, args)


if __name__ == "__main__":
    sys.exit(main())
