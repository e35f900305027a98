# SPDX-License-Identifier: Apache-2.0
"""Writes the tracker's estimates into a rosbag2 without ROS, as the messages that the node would publish."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.apps.bags.types import COMPRESSED_IMAGE, DETECTIONS, TARGET, TARGETS, ros2_types
from dimp_ros.apps.recording.annotator import Annotator
from dimp_ros.files.outputs import OutputFolder, WriteFailed, write_error
from dimp_ros.geometry.box import Box
from dimp_ros.images.frame_source import Frame
from dimp_ros.images.video import BgrImage
from dimp_ros.tracker.result import TargetEstimate

TARGET_CLASS = "target"
"""class_id of every hypothesis, as in the node: the tracker is class-agnostic."""

DEBUG_IMAGE = "/debug_image/compressed"
STORAGES = ("mcap", "sqlite3")
TIMES = {"mcap": range(2**64), "sqlite3": range(-(2**63), 2**63)}
"""Times of recording that a storage can hold, nanoseconds."""
METADATA_VERSION: Literal[8] = 8
"""The newest layout of metadata.yaml that Humble reads; 9 changes the format of QoS profiles."""


class BagMessages:
    """Messages of targets, like those of `dimp_ros.ros_utils.messages`, as objects of the package rosbags.

    ``age`` is 0, since processing is offline; ``bearing`` is 0, since the camera is not known.
    """

    def __init__(self) -> None:
        self._types = ros2_types().types

    def _make(self, name: str, *values: Any, **fields: Any) -> Any:
        return self._types[name](*values, **fields)

    def header(self, header: Any) -> Any:
        """Return the header of a message of ROS 1 or 2 as one of ROS 2."""
        stamp = self._make("builtin_interfaces/msg/Time", int(header.stamp.sec), int(header.stamp.nanosec))
        return self._make("std_msgs/msg/Header", stamp, header.frame_id)

    def image(self, kind: str, message: Any) -> Any:
        """Return an image message of ROS 1 or 2 as one of ROS 2."""
        names = ("format",) if kind == COMPRESSED_IMAGE else ("height", "width", "encoding", "is_bigendian", "step")
        fields = {name: getattr(message, name) for name in (*names, "data")}
        return self._make(kind, header=self.header(message.header), **fields)

    def jpeg(self, header: Any, image: BgrImage) -> Any:
        """Return an image, HxWx3 uint8 BGR, as a CompressedImage."""
        data = cv2.imencode(".jpg", image)[1].reshape(-1)
        return self._make(COMPRESSED_IMAGE, header, "bgr8; jpeg compressed bgr8", data)

    def detections(self, header: Any, estimates: Sequence[TargetEstimate]) -> Any:
        """Return the targets in sight as a Detection2DArray."""
        seen = [self._detection(header, estimate) for estimate in estimates if estimate.box is not None]
        return self._make(DETECTIONS, header, seen)

    def target_state(self, header: Any, estimate: TargetEstimate) -> Any:
        """Return an estimate as a TargetState."""
        return self._make(
            TARGET,
            header=header,
            id=estimate.target_id,
            start=estimate.start,
            state=int(estimate.state),
            bbox=self._bounding_box(estimate.box),
            bearing=self._make("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0),
            confidence=estimate.confidence,
            peak=estimate.peak,
            distractor_ratio=estimate.distractor_ratio,
            frames_since_seen=estimate.frames_since_seen,
            seconds_since_seen=estimate.seconds_since_seen,
            age=0.0,
        )

    def target_states(self, header: Any, estimates: Sequence[TargetEstimate], width: int = 0, height: int = 0) -> Any:
        """Return the estimates of an image of that size as a TargetStateArray."""
        return self._make(TARGETS, header, width, height, [self.target_state(header, one) for one in estimates], 0)

    def _bounding_box(self, box: Box | None) -> Any:
        pixels = box or Box(0.0, 0.0, 0.0, 0.0)
        center = self._make("vision_msgs/msg/Point2D", *pixels.center)
        pose = self._make("vision_msgs/msg/Pose2D", center, 0.0)
        return self._make("vision_msgs/msg/BoundingBox2D", pose, pixels.w, pixels.h)

    def _detection(self, header: Any, estimate: TargetEstimate) -> Any:
        upright = self._make("geometry_msgs/msg/Quaternion", 0.0, 0.0, 0.0, 1.0)
        position = self._make("geometry_msgs/msg/Point", 0.0, 0.0, 0.0)
        pose = self._make("geometry_msgs/msg/Pose", position, upright)
        uncertain = self._make("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36))
        hypothesis = self._make("vision_msgs/msg/ObjectHypothesis", TARGET_CLASS, estimate.confidence)
        result = self._make("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis, uncertain)
        return self._make(
            "vision_msgs/msg/Detection2D", header, [result], self._bounding_box(estimate.box), estimate.target_id
        )


class ResultBag:
    """A rosbag2 with `/detections`, `/target` and `/targets` for each image of another bag, at that image's time.

    The folder appears when the bag is closed, so that a failed run leaves none. The topics have the node's QoS: on
    replay, late subscribers of `/target` and `/targets` get the last message, too.

    :param storage: one of `STORAGES`. :param copy_images: copy the images as well, under their own topic.
    :param annotator: draws the images that are written as `/debug_image/compressed`; None writes none.
    :param notes: custom data of metadata.yaml.
    :raises ValueError: if the images' topic has the name of a result.
    """

    def __init__(
        self,
        path: Path,
        source: ImageBag,
        storage: str,
        *,
        copy_images: bool,
        annotator: Annotator | None,
        notes: Mapping[str, str],
    ) -> None:
        topics = {"/detections": DETECTIONS, "/target": TARGET, "/targets": TARGETS}
        if annotator is not None:
            topics[DEBUG_IMAGE] = COMPRESSED_IMAGE
        if copy_images and source.topic.name in topics:
            raise ValueError(f"the images on {source.topic.name} cannot be copied: the results have that name")
        self.path = path
        self._source, self._storage, self._notes = source, storage, notes
        self._topics, self._copy_images, self._annotator = topics, copy_images, annotator
        self._messages, self._types = BagMessages(), ros2_types()
        self._output: OutputFolder | None = None
        self._writer: Any = None
        self._connections: dict[str, Any] = {}

    def add(self, frame: Frame, estimates: Sequence[TargetEstimate], milliseconds: float) -> None:
        """Write the results of an image under its own header; an image without a readable header is skipped.

        :raises OSError: if it cannot be written.
        """
        try:
            self._add(frame, estimates)
        except Exception as error:
            raise self._failed(error) from error

    def _add(self, frame: Frame, estimates: Sequence[TargetEstimate]) -> None:
        if self._writer is None:
            self._open()
        image = frame.origin
        if image is None or image.message is None:
            return
        header = self._messages.header(image.message.header)
        height, width = (0, 0) if frame.image is None else frame.image.shape[:2]
        self._write("/detections", image.time, self._messages.detections(header, estimates))
        self._write("/targets", image.time, self._messages.target_states(header, estimates, width, height))
        for estimate in estimates:
            self._write("/target", image.time, self._messages.target_state(header, estimate))
        if self._annotator is not None and frame.image is not None:
            self._write(DEBUG_IMAGE, image.time, self._messages.jpeg(header, self._annotator.draw(frame, estimates)))
        if self._copy_images:
            topic = self._source.topic
            if self._source.is_ros1:
                self._write(topic.name, image.time, self._messages.image(topic.type, image.message))
            else:
                self._put(topic.name, image.time, image.raw)

    def close(self) -> None:
        """Write index and metadata, and put the bag under its name.

        :raises OSError: if that fails; the bag is removed then.
        """
        writer, self._writer = self._writer, None
        if writer is None or self._output is None:
            return
        try:
            writer.close()
        except Exception as error:
            self._output.discard()
            raise self._failed(error) from error
        self._output.commit()

    def discard(self) -> None:
        """Remove an unfinished bag."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(Exception):  # its remaining content is removed below
                writer.close()
        if self._output is not None:
            self._output.discard()

    def _write(self, topic: str, time: int, message: Any) -> None:
        self._put(topic, time, self._types.serialize_cdr(message, self._connections[topic].msgtype))

    def _put(self, topic: str, time: int, raw: bytes | memoryview) -> None:
        if time not in TIMES[self._storage]:
            raise ValueError(f"an image was recorded at {time} ns, for which {self._storage} has no room")
        self._writer.write(self._connections[topic], time, raw)

    def _failed(self, error: Exception) -> OSError:
        """Return the error for a bag that is not written."""
        if isinstance(error, OSError | sqlite3.Error):
            return write_error(self.path, error)
        storages = " or ".join(name for name in STORAGES if name != self._storage)
        return WriteFailed(
            f"{self.path} could not be written ({type(error).__name__}: {error}), nothing of it is left; give "
            f"--storage {storages}, or no --out-bag"
        )

    def _open(self) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self._output = OutputFolder(self.path)
        writer = Writer(
            self._output.partial, version=METADATA_VERSION, storage_plugin=StoragePlugin[self._storage.upper()]
        )
        for key, value in self._notes.items():
            writer.set_custom_data(key, value)
        writer.open()
        self._writer = writer
        for topic, kind in self._topics.items():
            depth = 10 if topic == "/detections" else 1
            self._connect(topic, kind, [_reliable(depth, latched=kind in (TARGET, TARGETS))])
        if self._copy_images:
            self._connect(self._source.topic.name, self._source.topic.type, self._source.qos)

    def _connect(self, topic: str, kind: str, qos: list[Any]) -> None:
        self._connections[topic] = self._writer.add_connection(
            topic, kind, typestore=self._types, offered_qos_profiles=qos
        )


def _reliable(depth: int, *, latched: bool = False) -> Any:
    """Return the QoS of `dimp_ros.ros_utils.qos.reliable_qos` as rosbags writes it."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)  # as rosbag2 records "no limit"
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    limits = (forever, forever, QosLiveliness.AUTOMATIC, forever)
    return Qos(QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability, *limits, False)
