# SPDX-License-Identifier: Apache-2.0
"""Messages from browsers, and the format of images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.apps.console.jpeg_encoder import encode, ladder
from dimp_ros.apps.console.protocol import (
    Ack,
    BadMessage,
    Drop,
    Enable,
    Init,
    Login,
    pack_image,
    parse,
    unpack_image,
)

INIT = {"type": "init", "request": 3, "stamp": [5, 7], "box": [1, 2.5, 30, 40], "id": "cup"}


def test_every_message_of_the_page_is_understood():
    assert parse(json.dumps(INIT)) == Init(3, (5, 7), (1.0, 2.5, 30.0, 40.0), "cup")
    assert parse('{"type": "drop", "request": 1, "id": ""}') == Drop(1, "")
    assert parse('{"type": "enable", "request": 1, "enabled": false}') == Enable(1, False)
    assert parse(json.dumps({**INIT, "drop_number": 8})) == Init(3, (5, 7), (1.0, 2.5, 30.0, 40.0), "cup", 8)
    assert parse('{"type": "drop", "request": 1, "id": "", "drop_number": 8}') == Drop(1, "", 8)
    assert parse('{"type": "enable", "request": 1, "enabled": true, "pause_number": 8}') == Enable(1, True, 8)
    assert parse('{"type": "ack", "number": 12}') == Ack(12)
    assert parse('{"type": "login", "token": "x"}') == Login("x")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "reboot"},
        {"type": None},
        {"type": ["init"]},
        {"request": -1},
        {"request": 1.5},
        {"request": True},
        {"request": 10**30},
        {"stamp": [5]},
        {"stamp": [-1, 0]},
        {"stamp": [2**31, 0]},
        {"stamp": [0, 10**9]},
        {"stamp": ["5", 7]},
        {"stamp": {"sec": 5}},
        {"box": [1, 2, 3]},
        {"box": [1, 2, 3, "4"]},
        {"box": [1, 2, 3, True]},
        {"box": [1, 2, 3, float("nan")]},
        {"box": [1, 2, 3, float("inf")]},
        {"box": [1, 2, 3, 10**400]},
        {"box": None},
        {"id": None},
        {"id": 5},
        {"id": "x" * 256},
        {"id": "\ud800"},
        {"drop_number": -1},
        {"drop_number": None},
        {"drop_number": "8"},
    ],
)
def test_what_the_page_would_not_say_is_refused(change):
    with pytest.raises(BadMessage):
        parse(json.dumps({**INIT, **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"init"', "[" * 4000, "9" * 4096, "{}"])
def test_invalid_message_is_refused(text):
    with pytest.raises(BadMessage):
        parse(text)


@given(st.text())
def test_no_text_does_more_than_be_refused(text):
    with pytest.raises(BadMessage):
        parse(text)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), st.binary())
def test_packed_image_is_unpacked_unchanged(header, jpeg):
    assert unpack_image(pack_image(header, jpeg)) == (header, jpeg)


def test_each_quality_is_smaller_and_none_enlarges():
    random = np.random.default_rng(1)
    small = random.integers(0, 255, (36, 64, 3), np.uint8)
    image = np.kron(small, np.ones((20, 20, 1), np.uint8))
    levels = ladder(1280)
    sizes = [len(encode(image, level)) for level in levels]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 8
    import cv2

    assert cv2.imdecode(np.frombuffer(encode(small, levels[0]), np.uint8), cv2.IMREAD_COLOR).shape == small.shape
    reduced = cv2.imdecode(np.frombuffer(encode(image, levels[3]), np.uint8), cv2.IMREAD_COLOR)
    assert reduced.shape[1] == levels[3].width and reduced.shape[0] == round(720 * levels[3].width / 1280)
