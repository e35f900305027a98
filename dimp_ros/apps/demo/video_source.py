# SPDX-License-Identifier: Apache-2.0
"""A node that plays a video, or a folder of pictures, as an image topic."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from dimp_ros.images.video import Picture, Video
from dimp_ros.ros_utils.messages import from_bgr
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos
from dimp_ros.ros_utils.spin import Finish, run

DEFAULT_RATE = 30.0

PARAMETERS: tuple[tuple[str, Any, str], ...] = (
    ("video", "", "Path of a video file, or of a folder of pictures, played in the order of their names."),
    ("rate", 0.0, "Images a second; 0 means the video's own rate, for pictures 30."),
    ("first_frame", 0, "First image that is played, counted from 0."),
    ("last_frame", -1, "Last image that is played; -1 means the video's last."),
    ("loop", False, "Begin anew after the last image, instead of ending."),
    ("paused", False, "Show the first image again and again, until ~/set_playing says otherwise."),
    ("wait_for_subscribers", 0, "How many subscribers must be there before the first image is published."),
    ("frame_id", "camera", "frame_id of the images."),
)


class VideoSource(Node):
    """Publishes a video on ``image`` at its rate, stamped with the time of publication.

    The timer runs on the steady clock: with simulated time it may be this very node that everybody waits for.

    :param finish: called with the exit code after the last image.
    """

    def __init__(self, finish: Finish, **node_options: Any) -> None:
        super().__init__("video_source", **node_options)
        self._finish = finish
        for name, default, text in PARAMETERS:
            descriptor = ParameterDescriptor(
                description=text, read_only=True, dynamic_typing=isinstance(default, float)
            )
            self.declare_parameter(name, default, descriptor)
        first, last = self._value("first_frame"), self._value("last_frame")
        if first < 0 or (0 <= last < first):
            raise ValueError(
                f"frames {first} to {last} are none; first_frame must be 0 or more and not after last_frame"
            )
        self._video = Video(self._value("video"))
        pictures = self._pictures_from_first()
        begin = next(pictures, None)
        if begin is None:
            raise ValueError(f"video {self._video.source!r} has no image {first} that OpenCV can read")
        self._pictures: Iterator[Picture] = chain([begin], pictures)
        self._playing = threading.Event()
        if not self._value("paused"):
            self._playing.set()
        self._picture: Picture | None = None
        self._begun = self._ended = False
        self.published = 0
        self._images = self.create_publisher(Image, "image", reliable_qos(10), **publisher_options())
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(SetBool, "~/set_playing", self._on_set_playing, callback_group=group)
        rate = float(self._value("rate")) or self._video.fps or DEFAULT_RATE
        if not 0.0 < rate <= 1000.0:
            raise ValueError(f"rate is {rate:g} images a second, but must lie in 0 .. 1000")
        self.create_timer(1.0 / rate, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"{self._value('video')}: {rate:g} images a second on {self._images.topic_name}")

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set_playing(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        (self._playing.set if request.data else self._playing.clear)()
        response.success, response.message = True, "playing" if request.data else "paused: the image is repeated"
        return response

    def _on_timer(self) -> None:
        if self._ended or not (self._begun or self._audience_complete()):
            return
        self._begun = True
        if self._picture is None or self._playing.is_set():
            try:
                self._picture = self._next_picture()
            except ValueError as error:
                self.get_logger().error(str(error))
                self._end(1)
                return
        if self._picture is None:
            self._end(0)
            return
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._value("frame_id"))
        self._images.publish(from_bgr(header, self._picture))
        self.published += 1

    def _audience_complete(self) -> bool:
        wanted, there = self._value("wait_for_subscribers"), self._images.get_subscription_count()
        if there < wanted:
            text = f"waiting for {wanted} subscribers of {self._images.topic_name}, {there} so far"
            self.get_logger().info(text, throttle_duration_sec=5.0)
        return bool(there >= wanted)

    def _pictures_from_first(self) -> Iterator[Picture]:
        last = self._value("last_frame")
        frames = self._video.frames(self._value("first_frame"), None if last < 0 else last + 1)
        return (picture for _, picture in frames)

    def _next_picture(self) -> Picture | None:
        picture = next(self._pictures, None)
        if picture is None and self._value("loop"):
            self._pictures = self._pictures_from_first()
            picture = next(self._pictures, None)
        return picture

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
