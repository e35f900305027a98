# SPDX-License-Identifier: Apache-2.0
"""A detector's input beside requests of people."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vision_msgs.msg", reason="ROS is not sourced")
pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: `make setup`, or colcon")

from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.node.detection_input import DetectorInput
from dimp_ros.node.drop_log import DropLog
from dimp_ros.node.requests import RequestRefused, Requests


class Requested:
    """Notes what is started, and lets a person start something while a detection's image is looked for."""

    def __init__(self, pipeline: Any, meanwhile: tuple[str, ...]) -> None:
        self.pipeline, self.meanwhile = pipeline, meanwhile
        self.started: list[str] = []

    drops = SimpleNamespace(detections_held=False)

    def init_target(self, stamp: Any, bbox: Any, normalized: bool, target_id: str, still_wanted: Any) -> Any:
        """Start a target if that is wanted in the end."""
        self.pipeline.starting = self.meanwhile
        if still_wanted():
            self.started.append(target_id)
        return None


@pytest.mark.parametrize(
    ("starting", "meanwhile", "starts"),
    [((), (), 1), (("who",), (), 0), ((), ("who",), 0), (("other",), ("other",), 1)],
    ids=["alone", "a person was first", "a person comes between", "another name"],
)
def test_detection_replaces_no_target_that_a_person_is_starting(starting, meanwhile, starts):
    pipeline: Any = SimpleNamespace(enabled=True, targets=(), starting=starting, estimates=[], late=())
    settings: Any = {
        "detector.target_id": "who",
        "detector.rule": "best_score",
        "detector.classes": [],
        "detector.min_score": 0.0,
    }
    requests: Any = Requested(pipeline, meanwhile)
    detection = Detection2D(results=[ObjectHypothesisWithPose()])
    detection.bbox.size_x = detection.bbox.size_y = 10.0
    DetectorInput(pipeline, requests, settings, SimpleNamespace(info=print, warning=print)).receive(  # type: ignore[arg-type]
        Detection2DArray(detections=[detection])
    )
    assert len(requests.started) == starts


def test_detections_are_held_from_a_drop_until_tracking_is_enabled_or_a_person_starts_their_target():
    pipeline: Any = SimpleNamespace(targets=("who", "cup"), starting=(), drop=print, set_enabled=print, repeat=print)
    requests = Requests(pipeline, {"detector.target_id": "who"}, None, str, DropLog())  # type: ignore[arg-type]
    for drop, held in (("cup", False), ("who", True)):
        requests.drop_target(drop)
        assert requests.drops.detections_held is held
    requests.take_detections_again("who")
    pipeline.targets = ("cup",)
    with pytest.raises(RequestRefused, match="no detection starts it"):
        requests.drop_target("who")
    assert requests.drops.detections_held, "although there is no such target at the moment"
    pipeline.targets = ("who", "cup")
    requests.take_detections_again("cup")
    requests.set_enabled(False)
    assert requests.drops.detections_held
    requests.take_detections_again("who")
    assert not requests.drops.detections_held
    assert "detections start it again" in requests.drop_target("")
    assert requests.drops.detections_held
    requests.set_enabled(True)
    assert not requests.drops.detections_held
