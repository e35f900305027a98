# SPDX-License-Identifier: Apache-2.0
"""The demo: source, tracker and client together, the recorded files, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from harness.ros_harness import BOX, Parameter, ScriptedTracker, State, context, spinning, tracker_node, wait_until
from sensor_msgs.msg import Image

from dimp_ros.apps.demo.demo import Demo, is_lasting, lost_text
from dimp_ros.apps.demo.video_source import VideoSource
from dimp_ros.files.outputs import WriteFailed
from dimp_ros.images.video import VideoWriter
from dimp_ros.node.tracker_loader import TrackerUnavailable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_discovery(monkeypatch):
    """Do not wait: nothing was there before, but in two tests."""
    for module in ("demo", "video_source"):
        monkeypatch.setattr(f"dimp_ros.apps.demo.{module}.DISCOVERY_SECONDS", 0.1)


def run_demo(tracker: object, folder: Path, *, waits: bool = True, **parameters: object) -> tuple[int, Path]:
    """Run the demo on 20 images, numbered by their pixels; return its exit code and the folder of its results.

    :param waits: whether the source waits for the target, and ends; otherwise it plays over and over, as a camera.
    """
    out = folder / "out"
    (folder / "images").mkdir()
    for number in range(20):
        cv2.imwrite(str(folder / "images" / f"{number:03d}.png"), np.full((48, 64, 3), 10 * number, np.uint8))
    source = {"video": str(folder / "images"), "rate": 20.0, "wait_for_subscribers": 2}
    demo = {"box": list(BOX), "out": str(out), "silence": 1.0, **parameters}
    if not waits:
        source |= {"loop": True}
        demo |= {"source": "another"}
    codes: list[int] = []
    with context():
        nodes = [
            tracker_node(tracker),
            VideoSource(lambda _code: None, parameter_overrides=[Parameter(k, value=v) for k, v in source.items()]),
            Demo(codes.append, parameter_overrides=[Parameter(k, value=v) for k, v in demo.items()]),
        ]
        with spinning(*nodes):
            wait_until(lambda: codes, "the end of the demo", 60.0)
            nodes[-1].close()
    return codes[0], out


def test_target_is_set_in_the_first_image_and_all_are_recorded(tmp_path):
    tracker = ScriptedTracker()
    tracker.init_seconds = 0.6
    code, out = run_demo(tracker, tmp_path)
    assert code == 0
    assert [(number, box) for number, box, _ in tracker.inits] == [(0, BOX)]
    assert min(number for number in tracker.updates if number > 0) <= 50, "the source did not wait for the target"
    assert tracker.updates[-1] == 190, "the last image is missing"
    result = json.loads((out / "result.json").read_text())
    assert 19 <= result["published"] <= 23, "images that are repeated until the target is set are not of the video"
    assert result["published"] / 2 < result["tracked"] == result["frames"] <= result["published"]  # a busy machine
    assert result["lost"] == result["uncertain"] == 0 and result["median_confidence"] == 0.75
    assert 0 < result["age_ms_median"] <= result["age_ms_p95"] and 1 < result["tracker_fps"] < 25  # the same
    assert result["model"] == "dimp_lite" and result["rmw"].startswith("rmw_")
    video = cv2.VideoCapture(str(out / "annotated.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == result["published"]
    assert 1 < video.get(cv2.CAP_PROP_FPS) < 24, "the rate of the images, which a busy machine lowers"


def test_skipped_images_are_counted_and_recorded(tmp_path):
    code, out = run_demo(ScriptedTracker(seconds=0.2), tmp_path)
    result = json.loads((out / "result.json").read_text())
    assert code == 0 and 1 <= result["frames"] <= result["published"] * 0.6
    assert cv2.VideoCapture(str(out / "annotated.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == result["published"]


def test_demo_that_is_interrupted_keeps_its_video_and_fails(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(9):
        cv2.imwrite(str(tmp_path / "images" / f"{number:03d}.png"), np.full((48, 64, 3), 10 * number, np.uint8))
    source = {"video": str(tmp_path / "images"), "rate": 20.0, "loop": True, "wait_for_subscribers": 2}
    codes: list[int] = []
    with context():
        tracker, demo = ScriptedTracker(), {"box": list(BOX), "out": str(tmp_path / "out")}
        nodes = [
            tracker_node(tracker),
            VideoSource(lambda _code: None, parameter_overrides=[Parameter(k, value=v) for k, v in source.items()]),
            Demo(codes.append, parameter_overrides=[Parameter(k, value=v) for k, v in demo.items()]),
        ]
        with spinning(*nodes):
            wait_until(lambda: len(tracker.updates) > 20, "images")
            assert nodes[-1].close() and codes == [2]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["annotated.partial.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "out" / "annotated.partial.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 10


@pytest.mark.parametrize("video", ["annotated.mp4", "", "link"], ids=["the film", "its folder", "a link to it"])
def test_demo_does_not_replace_what_is_played(tmp_path, monkeypatch, capsys, video):
    """It is started without the launch file, and the source in the film's folder."""
    monkeypatch.chdir(tmp_path)
    writer = VideoWriter(tmp_path / "annotated.mp4", 20.0)
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    cv2.imwrite("000.png", np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "link").symlink_to("annotated.mp4")
    (tmp_path / "result.json").write_text('{"rmw": "of an earlier run"}')
    before = (tmp_path / "annotated.mp4").read_bytes()
    source = {"video": video or str(tmp_path), "loop": True}
    demo = {"box": list(BOX), "out": str(tmp_path)}
    codes: list[int] = []
    with context():
        nodes = [
            VideoSource(lambda _code: None, parameter_overrides=[Parameter(k, value=v) for k, v in source.items()]),
            Demo(codes.append, parameter_overrides=[Parameter(k, value=v) for k, v in demo.items()]),
        ]
        with spinning(*nodes):
            wait_until(lambda: codes, "the end of the demo", 20.0)
            nodes[-1].close()
    assert codes == [2] and (tmp_path / "annotated.mp4").read_bytes() == before
    assert "[demo] out" in capsys.readouterr().err and "earlier" in (tmp_path / "result.json").read_text()


def test_the_demo_fails_if_the_target_was_lost(tmp_path, capsys):
    tracker = ScriptedTracker()
    tracker.state = State.LOST
    code, out = run_demo(tracker, tmp_path)
    assert code == 1 and "lost" in capsys.readouterr().err
    result = json.loads((out / "result.json").read_text())
    assert result["lost"] == result["frames"] > 0 and result["tracked"] == 0


def test_the_demo_says_why_the_tracker_does_not_come_up(tmp_path, capsys):
    def factory(_parameters):
        raise TrackerUnavailable("weights are missing: copy them to /somewhere")

    code, _ = run_demo(factory, tmp_path, patience=4.0)
    assert code == 2 and "copy them to /somewhere" in capsys.readouterr().err


def test_the_demo_says_why_the_tracker_refuses_the_target(tmp_path, capsys):
    tracker = ScriptedTracker()
    tracker.failure = ValueError("the box is on nothing")
    code, _ = run_demo(tracker, tmp_path, patience=600.0)  # it does not go on asking
    assert code == 2 and "the box is on nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((500.0, 400.0, 30.0, 30.0), "0% of its area inside the 64 x 48"),
        ((-1.0, 5.0, 0.0, 0.0), "point (-1, 5) is out"),
    ],
)
@pytest.mark.parametrize("waits", [True, False], ids=["source that waits", "camera"])
def test_a_target_outside_of_the_image_ends_the_demo_at_once(tmp_path, capsys, monkeypatch, box, text, waits):
    monkeypatch.setattr("dimp_ros.apps.demo.demo.SOURCE_SECONDS", 10.0 if waits else 0.2)
    code, out = run_demo(ScriptedTracker(), tmp_path, waits=waits, box=list(box), patience=600.0)
    said = capsys.readouterr().err
    assert code == 2 and "[demo] the tracker refuses the target: " in said and text in said and not out.exists()


@pytest.mark.parametrize(
    ("refusals", "lasting"),
    [
        (["a", "box is outside", "box is outside", "box is outside"], True),
        (["box is outside", "box is outside"], False),
        (["box is outside", "", "box is outside", "box is outside"], False),
        (["", "", ""], False),
        (["no image has been received yet: look at the topic"] * 5, False),
        (["stamp 1.0 is 0.1 s ahead", "stamp 2.0 is 0.1 s ahead", "stamp 3.0 is 0.1 s ahead"], False),
    ],
)
def test_only_refusals_that_no_other_image_changes_are_lasting(refusals, lasting):
    assert is_lasting(refusals) == lasting


def test_a_second_demo_is_refused_and_does_not_disturb_the_first(tmp_path, capsys, monkeypatch):
    """It has a source and a folder of its own."""
    monkeypatch.undo()
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "000.png"), np.zeros((48, 64, 3), np.uint8))
    source = {"video": str(tmp_path / "images"), "rate": 20.0, "loop": True, "wait_for_subscribers": 2}
    codes: dict[str, list[int]] = {"first": [], "second": []}

    def made(name: str) -> tuple[VideoSource, Demo]:
        demo = {"box": list(BOX), "out": str(tmp_path / name)}
        played = [Parameter(k, value=v) for k, v in source.items()]
        recorded = [Parameter(k, value=v) for k, v in demo.items()]
        return (
            VideoSource(lambda _code: None, parameter_overrides=played),
            Demo(codes[name].append, parameter_overrides=recorded),
        )

    with context():
        tracker = ScriptedTracker()
        first = made("first")
        with spinning(tracker_node(tracker), *first):
            wait_until(lambda: len(tracker.updates) > 5, "images")
            second = made("second")
            with spinning(*second):
                wait_until(lambda: codes["second"], "the end of the second demo")
                second[1].close()
            assert second[0].published == 0 and codes == {"first": [], "second": [2]}
            before = len(tracker.updates)
            wait_until(lambda: len(tracker.updates) > before + 5, "further images for the first demo")
            first[1].close()
    said = capsys.readouterr().err
    assert "[demo] another demo runs in ROS domain" in said and "ROS_DOMAIN_ID" in said
    assert not (tmp_path / "second").exists()


def test_a_demo_beside_another_source_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    codes: list[int] = []
    with context():
        other = rclpy.create_node("camera_driver")
        publisher = other.create_publisher(Image, "image", 10)
        (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes())
        played = [Parameter("video", value=str(tmp_path)), Parameter("wait_for_subscribers", value=1)]
        recorded = [Parameter("box", value=list(BOX)), Parameter("out", value=str(tmp_path / "out"))]
        nodes = [
            VideoSource(lambda _code: None, parameter_overrides=played),
            Demo(codes.append, parameter_overrides=recorded),
        ]
        with spinning(other, *nodes):
            wait_until(lambda: codes, "the end of the demo")
            nodes[1].close()
        assert publisher is not None and nodes[0].published == 0
    assert codes == [2] and "[demo] 2 programs publish on /image in ROS domain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["rate:=fast"], 2, "argument rate:=fast: must be a number in 0 .. 1000"),
        (["traget:=1,2,3,4"], 2, "no such argument: traget"),
        (["target:=1,2,30,40", f"video:={__file__}"], 1, "error: video_source ended with exit code 1"),
    ],
)
def test_demo_without_launch_ends_at_once_with_a_reason(arguments, status, text):
    command = [sys.executable, str(ROOT / "tools" / "run_demo.py"), *arguments, "device:=cpu"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert result.returncode == status and text in result.stderr and "Traceback" not in result.stderr
    assert "no image has come" not in result.stderr, "it waited for the recorder to give up"


def test_demo_without_launch_runs_to_the_end_of_a_folder(tmp_path):
    (tmp_path / "video").mkdir()
    for number in range(12):
        image = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "video" / f"{number:03d}.png"), image)
    given = [
        f"video:={tmp_path / 'video'}",
        "target:=60,40,40,30",
        f"out:={tmp_path / 'out'}",
        "rate:=10",
        "namespace:=robot",
    ]
    command = [sys.executable, str(ROOT / "tools" / "run_demo.py"), *given, "device:=cpu", "log_level:=warn"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode in (0, 1), result.stderr  # 1: lost, which is not what is tested
    assert json.loads((tmp_path / "out" / "result.json").read_text())["published"] >= 11
    assert "refused" not in result.stderr + result.stdout, "the tracker was asked while it loads"


def test_full_disk_costs_the_video_and_no_figures(tmp_path, monkeypatch, capfd):
    def fail(_writer, _image):
        raise WriteFailed("annotated.mp4: its disk is full; free some space there")

    monkeypatch.setattr(VideoWriter, "write", fail)
    code, out = run_demo(ScriptedTracker(), tmp_path, silence=0.3)
    said = capfd.readouterr().err
    assert code == 2 and "[demo] annotated.mp4: its disk is full; free some space there" in said
    assert "Traceback" not in said and json.loads((out / "result.partial.json").read_text())["published"] >= 10
    assert not (out / "annotated.mp4").exists()


def test_a_lost_target_is_blamed_on_the_machine_where_many_images_are_skipped():
    assert lost_text(1, 240, 242) == "the target was lost in 1 of 240 images"
    assert "111 of 242 were skipped" in lost_text(1, 131, 242) and "rate:=10" in lost_text(1, 131, 242)
