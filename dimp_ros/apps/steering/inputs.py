# SPDX-License-Identifier: Apache-2.0
"""From messages of the tracker and the camera to the latest observation of the target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dimp_ros.apps.steering.safety import TargetObservation
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from dimp_ros.ros_utils.messages import target_estimate

if TYPE_CHECKING:
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CameraInfo

    from dimp_ros.msg import TargetState, TargetStateArray


class SteeringInputs:
    """The latest message of each kind, and the observation that they amount to. Not thread-safe.

    :param target_id: which target is observed; empty for the only one.
    """

    def __init__(self, target_id: str = "") -> None:
        self._target_id = target_id
        self._rectified = False
        self._given: Camera | None = None
        self._state: TargetState | None = None
        self._stamp = -1  # of its image, nanoseconds
        self._size = (0, 0)  # of its image, pixels
        self._sent = math.nan
        self._publishers = self._info_publishers = 1
        self._infos_differ = False  # while several nodes publish camera_info
        self._pose: tuple[int, str, tuple[float, float, float]] | None = None
        self._info: CameraInfo | None = None
        self._calibrated: Camera | None = None
        self.camera_trouble = "no camera_info has come"
        """What is wrong with camera_info; empty if nothing is."""
        self._absence = "nothing was received on targets: does the tracker run, and has it a target?"
        self.frame: str | None = None
        """frame_id of the images; None before the first one."""

    @property
    def camera(self) -> Camera | None:
        """The camera of the boxes; None while it is not known."""
        return self._given or self._calibrated

    @property
    def absence(self) -> str:
        """Why there is no observation."""
        if self._publishers > 1:
            return (
                f"{self._publishers} nodes publish targets and one is expected: stop the others (a killed node counts "
                "until its lease ends, 20 s with Fast DDS)"
            )
        return self._contradiction or self._absence

    @property
    def observation(self) -> TargetObservation | None:
        """The latest observation of the target; None if there is none, or if several nodes publish targets."""
        state = self._state
        if state is None or self._publishers > 1 or self._contradiction:
            return None
        of_image = self._pose is not None and self._pose[:2] == (self._stamp, self.frame)
        position = self._pose[2] if self._pose is not None and of_image else None
        fields = {**vars(target_estimate(state)), "stamp": self._stamp}
        return TargetObservation(**fields, sent=self._sent, position=position)

    @property
    def _contradiction(self) -> str:
        """Return what in the messages disagrees: targets with themselves, with the camera, or cameras; else empty."""
        if self._infos_differ and self._given is None:
            return (
                f"{self._info_publishers} nodes publish camera_info, and not the same: stop the others (a killed node "
                "counts until its lease ends, 20 s with Fast DDS)"
            )
        if self._state is None:
            return ""
        own = stamp_ns(self._state.header.stamp)
        if own != self._stamp:
            apart = (own - self._stamp) / NANOSECONDS
            return f"the target is of another image than its message: stamps differ by {apart:.3g} s"
        camera, (width, height) = self.camera, self._size
        if camera is not None and max(abs(width - camera.width), abs(height - camera.height)) > 1:
            return (
                f"the boxes are of images of {width} x {height} pixels, the camera's are {camera.width} x "
                f"{camera.height}: is camera_info of this camera, and of its present size?"
            )
        return ""

    def configure(self, target_id: str, rectified: bool, given: Camera | None) -> None:
        """Set parameters; the observation of another target is forgotten.

        :param given: the camera that is used instead of camera_info.
        """
        if target_id != self._target_id:
            self._forget(f"nothing was received about target {target_id!r} yet")
        self._target_id, self._given = target_id, given
        if rectified != self._rectified:
            self._rectified = rectified
            if self._info is not None:
                self._calibrate(self._info)

    def on_publishers(self, targets: int, camera_info: int) -> None:
        """Set how many publishers the two topics have."""
        self._publishers, self._info_publishers = targets, camera_info
        if self._infos_differ and camera_info <= 1:  # the last one may have been of the other node
            self._infos_differ, self._info, self._calibrated = False, None, None
            self.camera_trouble = "no camera_info has come since several nodes published it"

    def on_targets(self, targets: TargetStateArray, sent: float) -> None:
        """Take the tracker's message on all targets in an image.

        :param sent: when it was sent, `steady_seconds`.
        """
        stamp = stamp_ns(targets.header.stamp)
        self._stamp, self._sent, self._size = stamp, sent, (targets.image_width, targets.image_height)
        before, self.frame = self.frame, targets.header.frame_id
        names = [state.id for state in targets.targets]
        if self._target_id:
            chosen = [state for state in targets.targets if state.id == self._target_id]
            problem = f"there is no target {self._target_id!r}, only: {', '.join(names) or 'none'}"
        else:
            chosen = list(targets.targets)
            problem = f"{len(names)} targets ({', '.join(names)}): set target_id" if names else "there is no target"
        if len(chosen) != 1:
            self._forget(problem)
        elif before not in (None, self.frame):  # an image before a change is of another camera, or of other axes
            self._forget(f"the images' frame_id changed from {str(before)[:60]!r} to {self.frame[:60]!r}")
        else:
            self._state = chosen[0]

    def on_pose(self, pose: PoseStamped) -> None:
        """Take a pose; it counts for the image of its stamp alone, and in that image's frame."""
        place = pose.pose.position
        self._pose = stamp_ns(pose.header.stamp), pose.header.frame_id, (place.x, place.y, place.z)

    def on_camera_info(self, info: CameraInfo) -> None:
        """Take a camera_info. What was observed before the camera changed is forgotten; its stamp does not matter."""
        info.header.stamp.sec, info.header.stamp.nanosec = 0, 0
        if info == self._info:
            return
        first, self._info = self._info is None, info
        self._calibrate(info)
        if not first:
            self._infos_differ = self._info_publishers > 1
            if self._given is None:
                self._forget("the camera has changed")

    def _calibrate(self, info: CameraInfo) -> None:
        try:
            self._calibrated, self.camera_trouble = Camera.from_info(info, rectified=self._rectified), ""
        except Exception as error:
            self._calibrated, self.camera_trouble = None, f"camera_info: {error}"

    def _forget(self, why: str) -> None:
        self._state, self._absence = None, why
