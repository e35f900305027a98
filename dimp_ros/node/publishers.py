# SPDX-License-Identifier: Apache-2.0
"""The node's output topics: detections, states, poses, and a debug image while somebody subscribes to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.duration import Duration
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from dimp_ros.images.overlay import draw_target
from dimp_ros.images.picture import to_color
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from dimp_ros.msg import TargetState, TargetStateArray
from dimp_ros.node.position.messages import pose_stamped, pose_target, pose_with_covariance
from dimp_ros.ros_utils import messages
from dimp_ros.ros_utils.messages import from_bgr
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos
from dimp_ros.tracker.result import TargetEstimate

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from std_msgs.msg import Header

    from dimp_ros.images.picture import Picture
    from dimp_ros.node.drop_log import DropLog
    from dimp_ros.node.position.estimator import PositionEstimator
    from dimp_ros.ros_utils.parameters import Settings

FLUSH_SECONDS = 0.2
Size = tuple[int, int]


class Publishers:
    """Publishers of one node, from its configuration to its cleanup. :param drops: whose number is published."""

    def __init__(self, node: Node, positioner: PositionEstimator, settings: Settings, drops: DropLog) -> None:
        self._drops = drops
        self._node = node
        self._positioner = positioner
        self._settings = settings
        self._publishers: list[Any] = []
        try:
            self._open_all()
        except Exception:  # an invalid QoS override: close what was opened before it
            self.destroy()
            raise

    def _open_all(self) -> None:
        self._detections = self._open(Detection2DArray, "detections", reliable_qos(10))
        self._targets = self._open(TargetStateArray, "targets", reliable_qos(1, latched=True))
        # One message for each target of an image, in a burst.
        self._target = self._open(TargetState, "target", reliable_qos(self._settings["max_targets"], latched=True))
        # Not latched: a late subscriber would be sent to where the target was.
        self._pose = self._open(PoseStamped, "target_pose", reliable_qos(1))
        self._pose_covariance = self._open(PoseWithCovarianceStamped, "target_pose_with_covariance", reliable_qos(1))
        self._debug_image = self._open(Image, "debug_image", reliable_qos(1))

    def _open(self, kind: type, topic: str, qos: QoSProfile) -> Any:
        publisher = self._node.create_publisher(kind, topic, qos, **publisher_options())
        self._publishers.append(publisher)
        return publisher

    def publish(
        self, header: Header, estimates: Sequence[TargetEstimate], size: Size, gone: Sequence[TargetEstimate] = ()
    ) -> float:
        """Publish estimates as detections and as states, all under the image's own ``header``.

        :param size: width and height of the image, where they are known. :param gone: targets that were dropped.
        :returns: age of the image at publication, seconds.
        """
        self._detections.publish(messages.detections(header, estimates))
        age = self.publish_states(header, estimates, size, gone)
        self._publish_pose(header, estimates, size)
        return age

    def publish_states(
        self, header: Header, estimates: Sequence[TargetEstimate], size: Size, gone: Sequence[TargetEstimate] = ()
    ) -> float:
        """Publish estimates as states; the age is from the image's stamp to now, by the node's clock."""
        stamp = stamp_ns(header.stamp)
        age = (self._node.get_clock().now().nanoseconds - stamp) / NANOSECONDS

        def state(estimate: TargetEstimate) -> TargetState:
            box = estimate.box
            bearing = None if box is None else self._positioner.bearing(header, *size, box)
            return messages.target_state(header, replace(estimate, stamp=stamp, age=age, bearing=bearing))

        states = [state(estimate) for estimate in estimates]
        width, height = size
        array = TargetStateArray(header=header, image_width=width, image_height=height, targets=states)
        array.drop_number = self._drops.number
        self._targets.publish(array)
        for one in [*map(state, gone), *states] or [state(TargetEstimate())]:
            self._target.publish(one)
        return age

    def _publish_pose(self, header: Header, estimates: Sequence[TargetEstimate], size: Size) -> None:
        """Publish the position of a target, if it is TRACKING and its range is known."""
        chosen = pose_target(estimates, self._settings["pose_target"])
        if chosen is None or chosen.box is None:
            return
        found = self._positioner.position(header, *size, chosen.box)
        if found is not None:
            self._pose.publish(pose_stamped(header, found))
            self._pose_covariance.publish(pose_with_covariance(header, found))

    @property
    def debug_image_wanted(self) -> bool:
        """Whether anybody subscribes to the debug image."""
        return bool(self._debug_image.get_subscription_count() > 0)

    def publish_debug_image(self, header: Header, picture: Picture, estimates: Sequence[TargetEstimate]) -> None:
        """Publish the image with the targets drawn on it."""
        drawn = to_color(picture.region(0, 0, picture.width, picture.height)).copy()
        for line, estimate in enumerate(estimates or [TargetEstimate()]):
            confidence = estimate.confidence if estimate.box is not None else None
            name = estimate.target_id
            draw_target(drawn, estimate.state.name, box=estimate.box, confidence=confidence, target_id=name, line=line)
        self._debug_image.publish(from_bgr(header, drawn))

    def flush(self) -> None:
        """Wait until subscribers have received what was published, `FLUSH_SECONDS` at most in all.

        What is still under way when the publisher ends is lost.
        """
        end = time.monotonic() + FLUSH_SECONDS
        for publisher in (self._targets, self._target, self._detections):
            publisher.wait_for_all_acked(Duration(seconds=max(end - time.monotonic(), 0.0)))

    def destroy(self) -> None:
        """Take the topics off the graph."""
        while self._publishers:
            self._node.destroy_publisher(self._publishers.pop())
