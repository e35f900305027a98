# SPDX-License-Identifier: Apache-2.0
"""Parameters of a real node: batches, live and structural parameters, wrong values at the start, parameter events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: ROS tests need a ROS home")
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from dimp_ros.ros_utils.parameters import ParameterHandler  # noqa: E402
from dimp_ros.tracker.config import TrackerConfig  # noqa: E402


@pytest.fixture(autouse=True)
def ros() -> Iterator[None]:
    """Have rclpy initialised."""
    rclpy.init()
    yield
    rclpy.try_shutdown()


def handler(**overrides: Any) -> tuple[Node, ParameterHandler]:
    """Return a node with the parameters; a double underscore in a name stands for a dot."""
    node = Node("parameters", parameter_overrides=batch(**overrides))
    return node, ParameterHandler(node)


def batch(**values: Any) -> list[Parameter]:
    return [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]


def refused(node: Node, **values: Any) -> str:
    """Set parameters in one batch, which must be refused, and return the reason."""
    result = node.set_parameters_atomically(batch(**values))
    assert not result.successful
    return result.reason


def test_batch_is_accepted_as_a_whole_and_announced_once():
    node, parameters = handler()
    told = []
    parameters.on_change(told.append)
    changes = {"tracker__refine_steps": 2, "give_up_after": 5, "detector__classes": ["car"]}
    assert node.set_parameters_atomically(batch(**changes)).successful
    (change,) = told
    assert change.values == {"tracker.refine_steps": 2, "give_up_after": 5.0, "detector.classes": ("car",)}
    assert change.config == TrackerConfig(refine_steps=2) and parameters["give_up_after"] == 5.0


def test_batch_with_one_wrong_value_changes_nothing():
    node, parameters = handler()
    told = []
    parameters.on_change(told.append)
    reason = refused(node, give_up_after=5.0, detector__rule="loudest")
    assert "loudest" in reason and "nearest_center" in reason
    assert parameters["give_up_after"] == 60.0 and node.get_parameter("give_up_after").value == 60.0 and told == []


def test_a_setting_that_the_configuration_refuses_is_refused():
    node, parameters = handler()
    assert "multiple of 32" in refused(node, tracker__crop_size=300)
    assert parameters.tracker_config() == TrackerConfig()


@pytest.fixture
def settings_file(tmp_path):
    """Return a function that writes a file of settings."""

    def write(text: str) -> str:
        path = tmp_path / "tracker.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_tracker_config_sets_what_no_parameter_sets(settings_file):
    path = settings_file("best_boxes: 2\nseed: 4\nfind_growth: 3\n")
    node, parameters = handler(tracker_config=path, tracker__seed=7)
    parameters.read_tracker_config()
    assert parameters.tracker_settings() == {"best_boxes": 2, "find_growth": 3.0, "seed": 7}
    node.set_parameters_atomically(batch(tracker_config=""))
    parameters.read_tracker_config()
    assert parameters.tracker_settings() == {"seed": 7}


def test_wrong_value_in_tracker_config_is_refused_with_path(settings_file):
    path = settings_file("best_boxes: 60\n")
    _, parameters = handler(tracker_config=path)
    with pytest.raises(ValueError, match="best_boxes is 60") as error:
        parameters.read_tracker_config()
    assert path in str(error.value) and "tracker_config" in str(error.value)


def test_unchanged_and_foreign_parameters_are_not_reported():
    node, parameters = handler()
    told = []
    parameters.on_change(told.append)
    assert node.set_parameters_atomically(batch(give_up_after=60.0)).successful
    assert node.set_parameters_atomically(batch(use_sim_time=False)).successful
    assert told == []


def test_only_tracker_changes_carry_a_configuration():
    node, parameters = handler()
    told = []
    parameters.on_change(told.append)
    node.set_parameters_atomically(batch(detector__min_score=0.25))
    node.set_parameters_atomically(batch(tracker__search_tiles=0))
    assert [change.config for change in told] == [None, TrackerConfig(search_tiles=0)]


def test_only_live_parameters_change_while_configured():
    node, parameters = handler()
    parameters.frozen = True
    assert node.set_parameters_atomically(batch(tracker__not_found_threshold=0.3, request_timeout=1.0)).successful
    assert node.set_parameters_atomically(batch(model="dimp_lite")).successful, "that is what it is"
    for change in ({"model": "dimp50"}, {"max_targets": 3}, {"tracker__crop_size": 320}):
        reason = refused(node, **change)
        assert "deactivate" in reason and "clean it up" in reason
    parameters.frozen = False
    assert node.set_parameters_atomically(batch(model="dimp50")).successful and parameters["model"] == "dimp50"


@pytest.mark.parametrize(
    "change",
    [
        {"autostart": False},
        {"max_targets": True},
        {"max_targets": 2**62},
        {"max_targets": 4.0},
        {"give_up_after": float("nan")},
        {"give_up_after": "soon"},
        {"give_up_after": None},
        {"model": None},
        {"detector__classes": None},
        {"detector__classes": [1, 2]},
        {"detector__classes": ["car"] * 10**6},
        {"tracker__crop_size": 300},
    ],
    ids=str,
)
def test_any_wrong_value_is_refused_quickly_with_text(change):
    node, parameters = handler()
    name = next(iter(change)).replace("__", ".")
    before = parameters[name]
    begin = time.perf_counter()
    reason = refused(node, **change)
    assert 10 < len(reason) < 400 and time.perf_counter() - begin < 10.0
    assert parameters[name] == before and node.has_parameter(name)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model": 5}, "model is 5"),
        ({"max_targets": 1000}, "1 .. 64"),
        ({"detector__rule": "loudest"}, "nearest_center"),
        ({"tracker__crop_size": 300}, "multiple of 32"),
    ],
    ids=str,
)
def test_wrong_start_value_is_reported_until_corrected(overrides, words):
    node, parameters = handler(**overrides)
    with pytest.raises(ValueError, match=r"parameter") as error:
        parameters.require_valid()
    assert words in str(error.value)
    mended = {name: parameters[name.replace("__", ".")] for name in overrides}
    mended |= {"tracker__crop_size": 320} if "tracker__crop_size" in overrides else {}
    assert node.set_parameters_atomically(batch(**mended)).successful
    parameters.require_valid()


def test_given_setting_counts_even_if_it_is_the_default():
    node, parameters = handler(tracker__crop_size=TrackerConfig().crop_size)
    assert parameters.tracker_settings() == {"crop_size": TrackerConfig().crop_size}
    node.set_parameters_atomically(batch(tracker__seed=TrackerConfig().seed))
    assert parameters.tracker_settings() == {"crop_size": TrackerConfig().crop_size, "seed": TrackerConfig().seed}


def test_settings_of_the_weights_are_shown_but_not_set():
    node, parameters = handler(tracker__seed=7)
    told = []
    parameters.on_change(told.append)
    parameters.frozen = True
    parameters.adopt(TrackerConfig(crop_size=352, search_scale=6.0, seed=9))
    assert node.get_parameter("tracker.crop_size").value == 352 and parameters.tracker_config().search_scale == 6.0
    assert parameters.tracker_settings() == {"seed": 7} and parameters["tracker.seed"] == 7 and told == []
    parameters.adopt(TrackerConfig())
    assert parameters.tracker_config() == TrackerConfig(seed=7)


def test_failing_listener_is_logged_and_others_are_called(capfd):
    node, parameters = handler()
    told = []

    def fail(_change: Any) -> None:
        raise RuntimeError("no ears")

    parameters.on_change(fail)
    parameters.on_change(told.append)
    assert node.set_parameters_atomically(batch(give_up_after=1.0)).successful
    assert len(told) == 1 and "no ears" in capfd.readouterr().err
