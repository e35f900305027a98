# SPDX-License-Identifier: Apache-2.0
"""Message definitions for writing bags without ROS, and the type stores that contain them.

The texts are those of ``msg/`` and ``third_party/vision_msgs/msg`` without comments, since a package installed by pip
has no such files. A test compares them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
TARGET = "dimp_ros/msg/TargetState"
TARGETS = "dimp_ros/msg/TargetStateArray"

DEFINITIONS = {
    "vision_msgs/msg/Point2D": """
float64 x
float64 y
""",
    "vision_msgs/msg/Pose2D": """
vision_msgs/Point2D position
float64 theta
""",
    "vision_msgs/msg/BoundingBox2D": """
vision_msgs/Pose2D center
float64 size_x
float64 size_y
""",
    "vision_msgs/msg/ObjectHypothesis": """
string class_id
float64 score
""",
    "vision_msgs/msg/ObjectHypothesisWithPose": """
vision_msgs/ObjectHypothesis hypothesis
geometry_msgs/PoseWithCovariance pose
""",
    "vision_msgs/msg/Detection2D": """
std_msgs/Header header
vision_msgs/ObjectHypothesisWithPose[] results
vision_msgs/BoundingBox2D bbox
string id
""",
    DETECTIONS: """
std_msgs/Header header
vision_msgs/Detection2D[] detections
""",
    TARGET: """
uint8 UNINITIALIZED=0
uint8 TRACKING=1
uint8 UNCERTAIN=2
uint8 LOST=3
std_msgs/Header header
string id
uint32 start
uint8 state
vision_msgs/BoundingBox2D bbox
geometry_msgs/Vector3 bearing
float32 confidence
float32 peak
float32 distractor_ratio
uint32 frames_since_seen
float32 seconds_since_seen
float32 age
""",
    TARGETS: """
std_msgs/Header header
uint32 image_width
uint32 image_height
TargetState[] targets
uint64 drop_number
""",
}
"""The definition of each message by its name, as in a .msg file."""

INSTALL = "bags need the Python package rosbags, which is not installed: pip install rosbags"


@cache
def ros2_types() -> Typestore:
    """Return the types of ROS 2 and of this package; images and headers are the same in every distribution.

    :raises ImportError: without rosbags, with the remedy.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise ImportError(f"{INSTALL} ({error})") from error
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store


@cache
def ros1_types() -> Typestore:
    """Return the types of ROS 1, whose headers have a sequence number."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS1_NOETIC)
