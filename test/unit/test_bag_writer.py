# SPDX-License-Identifier: Apache-2.0
"""`dimp-track` on bags: written messages, and results kept after errors."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")
from harness.bag_fixtures import (
    BEGIN,
    COUNT,
    DELAY,
    HEIGHT,
    START,
    STEP,
    TOPIC,
    WIDTH,
    changed,
    picture,
    shots,
    write_ros1,
    write_ros2,
)
from harness.tracker_double import BrightestTracker
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader, Writer

from dimp_ros.apps.bags.types import COMPRESSED_IMAGE, ros2_types
from dimp_ros.apps.track import cli as track
from dimp_ros.geometry.box import Box

INIT = "--init=10,20,16,12"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command without a display and with the small tracker."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return lambda *arguments: track.main([str(item) for item in arguments], lambda model, device: BrightestTracker())


def contents(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return time and message of everything in a bag, by topic."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with Reader(path) as reader:
        for connection, time, raw in reader.messages():
            found.setdefault(connection.topic, []).append((time, ros2_types().deserialize_cdr(raw, connection.msgtype)))
    return found


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_messages_have_the_header_and_time_of_their_image(
    run: Callable[..., int], tmp_path: Path, storage: str
) -> None:
    path = write_ros2(tmp_path / "made", changed(6, picture=np.zeros((HEIGHT, WIDTH, 3), np.uint8)))

    assert run(path, INIT, "--out-bag", tmp_path / "out", "--storage", storage) == 0

    assert [file.suffix for file in (tmp_path / "out").glob("out.*")] == [{"mcap": ".mcap", "sqlite3": ".db3"}[storage]]
    found = contents(tmp_path / "out")
    assert found.keys() == {"/detections", "/target", "/targets"}
    for messages in found.values():
        assert [time for time, _ in messages] == [BEGIN + i * STEP + DELAY for i in range(COUNT)]
        assert [stamp_of(message) for _, message in messages] == [BEGIN + i * STEP for i in range(COUNT)]
        assert {message.header.frame_id for _, message in messages} == {"camera_optical"}
    for index in range(COUNT):
        detections, state, states = (found[name][index][1] for name in ("/detections", "/target", "/targets"))
        assert str(states.targets) == str([state]) and (state.id, state.start, state.age) == ("0", 1, 0.0)
        if index == 6:  # lost: no box anywhere
            assert detections.detections == [] and state.bbox.size_x == state.bbox.center.position.x == 0
            assert (state.state, state.frames_since_seen, state.confidence) == (3, 1, 0.0)
            assert state.seconds_since_seen == pytest.approx(0.1)
            continue
        (detection,) = detections.detections
        assert (state.state, state.frames_since_seen, state.seconds_since_seen) == (1, 0, 0.0)
        assert detection.bbox == state.bbox and detection.id == "0" and detection.header == state.header
        assert (state.bbox.center.position.x, state.bbox.center.position.y) == (18 + 4 * index, 26)
        assert (state.bbox.size_x, state.bbox.size_y) == (16, 12)
        assert detection.results[0].hypothesis.score == pytest.approx(state.confidence) == pytest.approx(0.9)


def test_several_targets_are_one_array_and_one_state_each(run: Callable[..., int], tmp_path: Path) -> None:
    path = write_ros2(tmp_path / "made", shots())
    assert run(path, "--init=ball=10,20,16,12", "--init=post=50,40,9,9", "--out-bag", tmp_path / "out") == 0
    found = contents(tmp_path / "out")
    for index in range(COUNT):
        assert [state.id for state in found["/targets"][index][1].targets] == ["ball", "post"]
        assert [box.id for box in found["/detections"][index][1].detections] == ["ball", "post"]
        assert [state.id for _, state in found["/target"][2 * index : 2 * index + 2]] == ["ball", "post"]


def test_the_topics_carry_the_nodes_quality_of_service(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(write_ros2(tmp_path / "made", shots()), INIT, "--out-bag", tmp_path / "out") == 0
    with Reader(tmp_path / "out") as reader:
        qos = {connection.topic: connection.ext.offered_qos_profiles for connection in reader.connections}
    for topic, depth, durability in (
        ("/detections", 10, QosDurability.VOLATILE),
        ("/target", 1, QosDurability.TRANSIENT_LOCAL),
        ("/targets", 1, QosDurability.TRANSIENT_LOCAL),
    ):
        (profile,) = qos[topic]
        assert (profile.depth, profile.durability) == (depth, durability)
        assert profile.reliability is QosReliability.RELIABLE


@pytest.mark.parametrize("kind", ["sensor_msgs/msg/Image", COMPRESSED_IMAGE])
@pytest.mark.parametrize("ros", [1, 2])
def test_images_are_copied_on_request_and_can_be_tracked_again(
    run: Callable[..., int], tmp_path: Path, ros: int, kind: str
) -> None:
    source = (
        write_ros1(tmp_path / "m.bag", shots(), kind) if ros == 1 else write_ros2(tmp_path / "m", shots(), kind=kind)
    )

    assert run(source, INIT, "--out-bag", tmp_path / "out", "--copy-images", "--start", 0, "--end", 4) == 0
    assert run(tmp_path / "out", INIT, "--out-bag", tmp_path / "again") == 0

    first, second = contents(tmp_path / "out"), contents(tmp_path / "again")
    assert [stamp_of(image) for _, image in first.pop(TOPIC)] == [BEGIN + i * STEP for i in range(4)]
    assert str(first) == str(second) and len(first["/target"]) == 4


def test_drawn_images_show_the_box_to_those_who_look_at_the_bag(run: Callable[..., int], tmp_path: Path) -> None:
    source = write_ros2(tmp_path / "made", changed(4, data=b"short"))
    assert run(source, "--init=ball=10,20,16,12", "--out-bag", tmp_path / "out", "--draw-images") == 0
    drawn = [message for _, message in contents(tmp_path / "out")["/debug_image/compressed"]]
    assert [stamp_of(message) for message in drawn] == [BEGIN + i * STEP for i in range(COUNT) if i != 4]
    picture_of_9 = cv2.imdecode(np.frombuffer(drawn[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert picture_of_9.shape == (HEIGHT, WIDTH, 3)
    blue, green, red = (int(value) for value in picture_of_9[26, 46])  # on the left edge of the box
    assert green > blue + 50 and green > red + 50


def test_a_broken_image_is_reported_and_the_target_lost_in_it(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = changed(4, data=b"short")
    broken[7] = changed(7, raw=b"nonsense")[7]
    path = write_ros2(tmp_path / "made", broken)

    arguments = ["--json", tmp_path / "out.json", "--out", tmp_path / "out.mp4", "--out-bag", tmp_path / "out"]
    assert run(path, INIT, *arguments, "--copy-images") == 0

    captured = capsys.readouterr()
    assert "2 of 10 images could not be read: frame 4: data has 5 bytes" in captured.err and "frame 7" in captured.err
    assert "10 frames, target in sight in 8" in captured.out
    entries = json.loads((tmp_path / "out.json").read_text())["frames"]
    assert [entry["state"] for entry in entries] == ["LOST" if i in (4, 7) else "TRACKING" for i in range(COUNT)]
    assert "data has 5 bytes" in entries[4]["problem"] and "problem" not in entries[5]
    assert entries[3]["stamp_ns"] == BEGIN + 3 * STEP and "stamp_ns" not in entries[7]
    states = contents(tmp_path / "out")["/target"]
    assert [stamp_of(state) for _, state in states] == [BEGIN + i * STEP for i in range(COUNT) if i != 7]
    assert [state.state for _, state in states] == [1, 1, 1, 1, 3, 1, 1, 1, 1]
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == COUNT


def test_broken_first_image_is_refused(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_ros2(tmp_path / "made", changed(0, data=b"short"))
    assert run(path, INIT, "--out-bag", tmp_path / "out") == 2
    assert "frame 0 of" in (error := capsys.readouterr().err) and "start on another, --start N" in error
    assert not (tmp_path / "out").exists()
    assert run(path, "--init=14,20,16,12", "--out-bag", tmp_path / "out", "--start", 1) == 0


def test_clock_set_back_does_not_stop_the_run(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [*shots(3), *changed(1, picture=np.zeros((HEIGHT, WIDTH, 3), np.uint8))[:3]]
    images[3:] = [type(s)(s.picture, s.stamp, s.time + 300_000_000) for s in images[3:]]
    assert run(write_ros2(tmp_path / "made", images), INIT, "--out-bag", tmp_path / "out") == 0
    assert "stamps went back 1 times" in capsys.readouterr().err
    states = [state for _, state in contents(tmp_path / "out")["/target"]]
    assert [state.state for state in states] == [1, 1, 1, 1, 3, 1]
    assert states[4].seconds_since_seen == pytest.approx(0.1)


def test_images_of_another_size_are_scaled_into_the_video(run: Callable[..., int], tmp_path: Path) -> None:
    large = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    large[50:60, 100:110] = 255
    path = write_ros2(tmp_path / "made", changed(4, picture=large))
    assert run(path, INIT, "--out", tmp_path / "out.mp4", "--json", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["frames"][4]["box"] == [100, 50, 16, 12]
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (COUNT, 10)


def test_ctrl_c_leaves_a_bag_that_can_be_read(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = BrightestTracker.update_all

    def interrupted(self: BrightestTracker, image: Any, only: Any = None) -> Any:
        if np.array_equal(image.region(0, 0, WIDTH, HEIGHT), picture(4)):
            raise KeyboardInterrupt
        return update(self, image, only)

    monkeypatch.setattr(BrightestTracker, "update_all", interrupted)
    assert run(write_ros2(tmp_path / "made", shots()), INIT, "--out-bag", tmp_path / "out") == 0
    assert len(contents(tmp_path / "out")["/targets"]) == 4


def test_a_tracker_that_fails_leaves_a_bag_that_can_be_read(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: BrightestTracker, image: Any, only: Any = None) -> Any:
        raise ValueError("no more memory")

    monkeypatch.setattr(BrightestTracker, "update_all", failing)
    assert run(write_ros2(tmp_path / "made", shots()), INIT, "--out-bag", tmp_path / "out") == 2
    assert len(contents(tmp_path / "out")["/targets"]) == 1


def test_damaged_bag_is_used_up_to_the_damage(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_ros2(tmp_path / "made", [*shots(120)])
    file = path / "made.mcap"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200_000] = b"\xff" * 200_000
    file.write_bytes(content)

    assert run(path, INIT, "--out-bag", tmp_path / "out", "--json", tmp_path / "out.json") == 1

    captured = capsys.readouterr()
    assert "is damaged after" in captured.err and "frames, target in sight" in captured.out
    frames = len(json.loads((tmp_path / "out.json").read_text())["frames"])
    assert 20 < frames < 120 and len(contents(tmp_path / "out")["/target"]) == frames


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([INIT, "--topic", "/none"], "has no topic /none"),
        ([INIT, "--out-bag", "THERE"], "exists already; give --out-bag another name"),
        ([INIT, "--out-bag", "no/such/folder"], "no folder no/such to write folder to"),
        ([INIT, "--init-stamp", "1600000000"], "no image on /camera/image_raw has the stamp 1600000000.000000000"),
        ([INIT, "--init-stamp", "1600000000", "--start", 3], "give one of them"),
        ([INIT, "--start", "99s"], "has no readable frame 99s"),
        (["--init=900,20,16,12", "--out-bag", "NEW"], "inside the 96 x 64 image"),
        ([], "give the target as --init x,y,w,h"),
    ],
)
def test_impossible_request_ends_with_2_and_writes_no_bag(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[Any], reason: str
) -> None:
    (tmp_path / "there").mkdir()
    places = {"THERE": tmp_path / "there", "NEW": tmp_path / "new"}
    path = write_ros2(tmp_path / "made", shots())

    assert run(path, *(places.get(item, item) for item in arguments)) == 2

    error = capfd.readouterr().err
    assert reason in error and "Traceback" not in error
    assert not (tmp_path / "new").exists() and list((tmp_path / "there").iterdir()) == []


def test_a_bag_of_no_images_is_refused(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_ros2(tmp_path / "made", []), INIT, "--out-bag", tmp_path / "out") == 2
    assert "no frame to start on" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_box_is_for_the_image_of_its_stamp(run: Callable[..., int], tmp_path: Path) -> None:
    path = write_ros2(tmp_path / "made", shots())
    arguments = ["--init=22,20,16,12", "--init-stamp", "1700000000.3", "--json", tmp_path / "out.json"]
    assert run(path, *arguments) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["bag"], document["topic"], document["fps"]) == (str(path), TOPIC, pytest.approx(10))
    assert [entry["frame"] for entry in document["frames"]] == list(range(3, COUNT))
    assert document["frames"][0]["box"] == [START[0] + 12, *START[1:]]


@pytest.mark.parametrize("stamp", ["1.5.2", "-3", "now", "1.0000000001"])
def test_text_that_is_not_a_stamp_is_refused(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], stamp: str
) -> None:
    with pytest.raises(SystemExit):
        run("x.mcap", INIT, f"--init-stamp={stamp}")
    assert "expected seconds such as" in capsys.readouterr().err


def test_help_explains_bags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        track.main(["--help"])
    text = capsys.readouterr().out
    assert "pip install rosbags" in text and "--out-bag" in text and "examples:" in text


def test_numbers_that_make_no_sense_are_lost_and_reported(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update = BrightestTracker.update_all

    def overflowing(self: BrightestTracker, image: Any, only: Any = None) -> Any:
        results = update(self, image, only)
        if np.array_equal(image.region(0, 0, WIDTH, HEIGHT), picture(4)):
            results["0"] = replace(results["0"], box=Box(*[float("nan")] * 4))
        return results

    monkeypatch.setattr(BrightestTracker, "update_all", overflowing)
    assert run(write_ros2(tmp_path / "made", shots()), INIT, "--out-bag", tmp_path / "out") == 0
    assert [state.state for _, state in contents(tmp_path / "out")["/target"]] == [1, 1, 1, 1, 3, 1, 1, 1, 1, 1]
    assert "in 1 frames an invalid result was reported as LOST; first frame 4: " in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bag_that_cannot_be_written_is_reported_and_removed(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str], storage: str
) -> None:
    source, log = write_ros2(tmp_path / "made", shots()), tmp_path / "o.json"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        options = ["--out-bag", tmp_path / "out", "--storage", storage, "--json", log, "--copy-images"]
        status = run(source, INIT, *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1 and f"{tmp_path / 'out'} could not be written" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["made"], ["made", "o.json"])


@pytest.mark.parametrize("index", [0, 4])
@pytest.mark.parametrize(
    ("storage", "other", "time"),
    [
        ("mcap", "sqlite3", -5),
        ("mcap", "sqlite3", -(2**63)),
        ("sqlite3", "mcap", 2**63),
        ("sqlite3", "mcap", 2**64 - 2),
    ],
)
@pytest.mark.parametrize("option", [[], ["--copy-images"]], ids=str)
def test_times_that_a_storage_cannot_hold_cost_no_other_output(
    run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    storage: str,
    other: str,
    time: int,
    index: int,
    option: list[str],
) -> None:
    images = changed(index, time=time) if time > 0 else [replace(shot, time=time) for shot in shots()]
    source = write_ros2(tmp_path / "made", images, other)
    outputs = ["--out-bag", tmp_path / "out", "--json", tmp_path / "o.json", "--out", tmp_path / "o.mp4", *option]
    assert run(source, INIT, *outputs, "--storage", storage) == 1
    error = capsys.readouterr().err
    assert f"recorded at {time} ns, for which {storage} has no room" in error and f"give --storage {other}" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "o.json", "o.mp4"]


@pytest.mark.parametrize(
    "error", [OverflowError("int too big"), KeyError("x"), OSError(28, "No space left"), ValueError()]
)
@pytest.mark.parametrize("when", ["add_connection", "write", "close"])
def test_any_error_of_the_writer_costs_its_bag_only(
    run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    when: str,
    error: Exception,
) -> None:
    source = write_ros2(tmp_path / "made", shots())

    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Writer, when, failing)
    assert run(source, INIT, "--out-bag", tmp_path / "out", "--json", tmp_path / "o.json") == 1
    reason = error.strerror if isinstance(error, OSError) else type(error).__name__
    assert f"{tmp_path / 'out'} could not be written ({reason}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "o.json"]
    assert len(json.loads((tmp_path / "o.json").read_text())["frames"]) == (COUNT if when == "close" else 1)


@pytest.mark.parametrize("place", ["made", "made/more", "made/metadata.yaml", "made/made.mcap"])
def test_output_into_the_bag_that_is_read_is_refused(run: Callable[..., int], tmp_path: Path, place: str) -> None:
    source = write_ros2(tmp_path / "made", shots())
    before = {path: path.read_bytes() for path in source.iterdir()}
    for option in ("--out-bag", "--json", "--out"):
        assert run(source, INIT, option, tmp_path / place) == 2
    assert {path: path.read_bytes() for path in source.iterdir()} == before


@pytest.mark.parametrize("place", ["metadata.yaml", "made.db3-wal", "made.db3-journal", "made_1.db3", "x.MCAP"])
def test_output_onto_what_belongs_to_a_file_of_a_bag_is_refused(
    run: Callable[..., int], tmp_path: Path, place: str
) -> None:
    source = write_ros2(tmp_path / "made", shots(), "sqlite3")
    (source / place).touch()
    before = (source / place).read_bytes()
    assert run(source / "made.db3", INIT, "--json", source / place) == 2
    assert (source / place).read_bytes() == before
