# SPDX-License-Identifier: Apache-2.0
"""Fast DDS gets room for large images if there is some, unless the user has configured it."""

from pathlib import Path

import pytest

from dimp_ros.ros_utils import fastdds as transport
from dimp_ros.ros_utils.fastdds import OWN_CHOICES, OWN_FILES, PROFILE, give_room_for_images

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    monkeypatch.setattr(transport, "_free", lambda folder: 2**40)


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("humble", OWN_CHOICES[1]), ("jazzy", OWN_CHOICES[1]), ("kilted", OWN_CHOICES[0]), ("", OWN_CHOICES[0])],
)
def test_the_profile_is_named_as_the_distribution_knows_it(tmp_path, distribution, variable):
    environment = {"ROS_DISTRO": distribution}
    assert give_room_for_images(environment, tmp_path) == ROOT / "config" / PROFILE
    assert environment[variable] == str(ROOT / "config" / PROFILE) and len(environment) == 2


@pytest.mark.parametrize("name", OWN_CHOICES)
def test_what_the_user_has_chosen_stands(tmp_path, name):
    environment = {name: "anything"}
    assert give_room_for_images(environment, tmp_path) is None and environment == {name: "anything"}


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_profile_in_the_working_directory_stands(tmp_path, name):
    (tmp_path / name).touch()
    environment: dict[str, str] = {}
    assert give_room_for_images(environment, tmp_path) is None and not environment


def test_without_shared_memory_to_spare_nothing_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "_free", lambda folder: 2**26)
    environment: dict[str, str] = {}
    assert give_room_for_images(environment, tmp_path) is None and not environment


def test_an_installed_package_finds_its_own_profile(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "__file__", str(tmp_path / "a" / "b" / "transport.py"))
    share = tmp_path / "prefix" / "share" / "dimp_ros" / "config"
    share.mkdir(parents=True)
    (share / PROFILE).touch()
    environment = {"AMENT_PREFIX_PATH": f"/nowhere:{tmp_path / 'prefix'}"}
    assert give_room_for_images(environment, tmp_path) == share / PROFILE
    assert give_room_for_images({}, tmp_path) is None


def test_a_file_system_that_is_not_there_has_no_room(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert transport._free(tmp_path / "none") == 0 and transport._free(tmp_path) > 0
