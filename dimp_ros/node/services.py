# SPDX-License-Identifier: Apache-2.0
"""The node's services: each request is answered, in words, whatever happens, and logged."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_services_default
from std_srvs.srv import SetBool

from dimp_ros.node.diagnostics.status import LOADING
from dimp_ros.node.requests import RequestRefused, Requests
from dimp_ros.ros_utils.messages import bounding_box
from dimp_ros.ros_utils.request_times import received_at, timed
from dimp_ros.ros_utils.text import shortened, traceback_text
from dimp_ros.srv import DropTarget, InitTarget

QUEUE_DEPTH = 100
"""Requests to one service that wait for their turn; of more at once, the middleware drops the oldest."""

Response = TypeVar("Response", InitTarget.Response, DropTarget.Response, SetBool.Response)


class Services:
    """Offers ``~/init_target``, ``~/drop_target`` and ``~/set_enabled``.

    :param requests: returns what serves requests, None while the node is not active.
    :param status_error: returns why it is not, if it is not merely unconfigured or inactive.
    """

    def __init__(self, node: Node, requests: Callable[[], Requests | None], status_error: Callable[[], str]) -> None:
        self._requests, self._status_error, self._logger = requests, status_error, node.get_logger()
        for kind, name, callback in (
            (InitTarget, "~/init_target", self._on_init_target),
            (DropTarget, "~/drop_target", self._on_drop_target),
            (SetBool, "~/set_enabled", self._on_set_enabled),
        ):
            qos = copy(qos_profile_services_default)
            qos.depth = QUEUE_DEPTH
            group = MutuallyExclusiveCallbackGroup()
            node.create_service(kind, name, callback, qos_profile=qos, callback_group=group)

    @timed
    def _on_init_target(self, request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        received = received_at(request)

        def init(requests: Requests) -> str:
            known = requests.drops.number_at(received)
            started = requests.init_target(
                request.stamp,
                request.bbox,
                request.normalized,
                request.id,
                drop_number=min(known, request.drop_number or known),
            )
            requests.take_detections_again(request.id)
            response.bbox = bounding_box(started.box)
            response.stamp, response.reached = started.stamp, started.reached
            response.frames_caught_up = started.images
            return started.message

        return self._answer("init_target", response, init)

    @timed
    def _on_drop_target(self, request: DropTarget.Request, response: DropTarget.Response) -> DropTarget.Response:
        received = received_at(request)

        def drop(requests: Requests) -> str:
            try:
                return requests.drop_target(request.id, received)
            finally:
                response.drop_number = requests.drops.number

        return self._answer("drop_target", response, drop)

    def _on_set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return self._answer("set_enabled", response, lambda requests: requests.set_enabled(request.data))

    def _answer(self, name: str, response: Response, act: Callable[[Requests], str]) -> Response:
        """Serve a request; fill in and log the answer."""
        try:
            requests = self._requests()
            if requests is None:
                remedy = self._status_error() or "configure and activate the node, or start it with autostart:=true"
                raise RequestRefused(f"the tracker is not active: {remedy}")
            response.message = shortened(act(requests))
            response.success = True
            self._logger.info(f"{name}: {response.message}")
        except RequestRefused as error:
            response.message = shortened(str(error))
            if LOADING in response.message:
                self._logger.info(f"{name} refused: {response.message}")
            else:
                self._logger.warning(f"{name} refused: {response.message}")
        except Exception as error:  # every request gets an answer
            response.message = shortened(f"the request failed: {type(error).__name__}: {error}; the log has more")
            self._logger.error(f"{name} failed:\n{traceback_text(error)}")
        return response
