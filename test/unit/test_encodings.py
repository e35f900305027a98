# SPDX-License-Identifier: Apache-2.0
"""The table of encodings is complete, and explains what it omits."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest

from dimp_ros.images.encodings import ENCODINGS, BadImage, find_encoding

HEADER = Path(sysconfig.get_path("data"), "include/sensor_msgs/sensor_msgs/image_encodings.hpp")
DOCUMENT = Path(__file__).parents[2] / "docs" / "images.md"
NEITHER = [f"{kind}C2" for kind in ("8U", "8S", "16U", "16S", "32S", "32F", "64F")]
SIGNED_COLOR = [f"{kind}C{channels}" for kind in ("8S", "16S", "32S") for channels in (3, 4)]


def test_every_encoding_of_ros_is_known_or_refused():
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is not installed")
    names = set(re.findall(r'^const char \w+\[\] = "(\w+)";', HEADER.read_text(), re.MULTILINE))
    assert len(names) > 40
    assert names - set(ENCODINGS) == {*NEITHER, *SIGNED_COLOR}


@pytest.mark.parametrize("name", [*NEITHER, *SIGNED_COLOR, "8UC5", "32FC17"])
def test_channels_of_no_meaning_are_refused_with_a_remedy(name):
    with pytest.raises(BadImage, match=rf"'{name}' does not say what its channels show.*publish one such as bgr8"):
        find_encoding(name)


@pytest.mark.parametrize(("name", "right"), [("RGB8", "rgb8"), ("Bayer_RGGB8", "bayer_rggb8"), ("16uc1", "16UC1")])
def test_misspelled_encoding_is_refused_with_its_spelling(name, right):
    with pytest.raises(BadImage, match=f"spelled '{right}'"):
        find_encoding(name)


@pytest.mark.parametrize("name", ["", None, 8, [], b"rgb8"])
def test_no_encoding_at_all_is_refused(name):
    with pytest.raises(BadImage, match=r"no encoding.*bgr8"):
        find_encoding(name)


def test_an_endless_name_is_not_repeated_in_full():
    with pytest.raises(BadImage) as error:
        find_encoding("x" * 10_000)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("name", "row", "rows"),
    [
        ("bgr8", 15, 3),
        ("rgba16", 40, 3),
        ("64FC3", 120, 3),
        ("yuyv", 12, 3),
        ("nv12", 6, 5),
        ("nv16", 6, 6),
        ("nv24", 5, 9),
        ("bayer_grbg16", 10, 3),
    ],
)
def test_bytes_and_rows_of_an_image_of_5_x_3(name, row, rows):
    assert ENCODINGS[name].row_bytes(5) == row
    assert ENCODINGS[name].data_rows(3) == rows


def test_the_document_names_every_encoding():
    text = DOCUMENT.read_text()
    assert [name for name in ENCODINGS if f"`{name}`" not in text] == []
