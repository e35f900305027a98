# SPDX-License-Identifier: Apache-2.0
"""From messages of the tracker to the one observation that a robot may move by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dimp_ros.apps.steering.safety import Observation
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns

if TYPE_CHECKING:
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CameraInfo

    from dimp_ros.msg import TargetState, TargetStateArray


class SteeringInputs:
    """The latest of what was heard, by message. Not for use from several threads at once.

    :param target_id: which target counts; empty for the only one.
    """

    def __init__(self, target_id: str = "") -> None:
        self._target_id = target_id
        self._rectified = False
        self._given: Camera | None = None
        self._state: TargetState | None = None
        self._stamp = -1  # of the latest image, nanoseconds, and when it was heard of first
        self._heard = 0.0
        self._pose: tuple[int, tuple[float, float, float]] | None = None
        self._info: CameraInfo | None = None
        self._calibrated: Camera | None = None
        self._calibrated_since = 0
        self.camera_trouble = "no camera_info has come"
        """What is wrong with camera_info; empty if nothing is."""
        self.absence = "nothing has come on targets: does the tracker run, and has it a target?"
        """Why there is no observation."""
        self.frame = ""
        """frame_id of the images."""

    @property
    def camera(self) -> Camera | None:
        """The camera that the boxes are of; None while it is not known."""
        return self._given or self._calibrated

    @property
    def observation(self) -> Observation | None:
        """What was said last of the target that counts; None if that is nothing."""
        state = self._state
        if state is None:
            return None
        centre, width, height = state.bbox.center.position, state.bbox.size_x, state.bbox.size_y
        posed = self._pose is not None and self._pose[0] == self._stamp
        return Observation(
            target_id=state.id,
            state=state.state,
            confidence=state.confidence,
            box=Box.from_center(centre.x, centre.y, width, height),
            stamp=self._stamp / NANOSECONDS,
            age=state.age,
            heard=self._heard,
            position=self._pose[1] if self._pose is not None and posed else None,
        )

    def configure(self, target_id: str, rectified: bool, given: Camera | None) -> None:
        """Take parameters; what was heard of another target is forgotten.

        :param given: the camera that holds instead of camera_info.
        """
        if target_id != self._target_id:
            self._forget(f"nothing has been heard of target {target_id!r} yet")
        self._target_id, self._given = target_id, given
        if rectified != self._rectified:
            self._rectified = rectified
            if self._info is not None:
                self._calibrate(self._info)

    def on_targets(self, targets: TargetStateArray, now: float) -> None:
        """Take what the tracker says of all targets of an image, at ``now`` of the monotonic clock.

        An image that is told of again does not become younger by that.
        """
        stamp = stamp_ns(targets.header.stamp)
        if stamp != self._stamp:
            self._stamp, self._heard = stamp, now
        self.frame = targets.header.frame_id
        names = [state.id for state in targets.targets]
        if self._target_id:
            chosen = [state for state in targets.targets if state.id == self._target_id]
            problem = f"there is no target {self._target_id!r}, only {', '.join(names) or 'none'}"
        else:
            chosen = list(targets.targets)
            problem = f"{len(names)} targets ({', '.join(names)}): set target_id" if names else "there is no target"
        if len(chosen) != 1:
            self._forget(problem)
        elif self._given is None and stamp < self._calibrated_since:
            self._forget("the image is of before the camera changed")
        else:
            self._state = chosen[0]

    def on_pose(self, pose: PoseStamped) -> None:
        """Take a pose; it counts for the image of its stamp alone."""
        place = pose.pose.position
        self._pose = stamp_ns(pose.header.stamp), (place.x, place.y, place.z)

    def on_camera_info(self, info: CameraInfo) -> None:
        """Take a camera_info. Boxes of images from before the camera changed do not fit it, and are forgotten."""
        stamp = stamp_ns(info.header.stamp)
        info.header.stamp.sec, info.header.stamp.nanosec = 0, 0
        if info == self._info:
            self._calibrated_since = min(self._calibrated_since, stamp)  # stamps may go back
            return
        first, self._info = self._info is None, info
        self._calibrate(info)
        if not first:
            self._calibrated_since = stamp
            if self._given is None:
                self._forget("the camera has changed")

    def _calibrate(self, info: CameraInfo) -> None:
        try:
            self._calibrated, self.camera_trouble = Camera.from_info(info, rectified=self._rectified), ""
        except Exception as error:
            self._calibrated, self.camera_trouble = None, f"camera_info: {error}"

    def _forget(self, why: str) -> None:
        self._state, self.absence = None, why
