# SPDX-License-Identifier: Apache-2.0
"""The node's services: each request is answered, in words, whatever happens, and logged."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import SetBool

from dimp_ros.node.requests import RequestRefused, Requests
from dimp_ros.srv import DropTarget, InitTarget

Response = TypeVar("Response", InitTarget.Response, DropTarget.Response, SetBool.Response)


class Services:
    """Offers ``~/init_target``, ``~/drop_target`` and ``~/set_enabled``.

    :param requests: gives what carries requests out, None while the node is not active.
    :param status_error: says why it is not, as far as it is not merely waiting to be told.
    """

    def __init__(self, node: Node, requests: Callable[[], Requests | None], status_error: Callable[[], str]) -> None:
        self._requests, self._status_error, self._logger = requests, status_error, node.get_logger()
        for kind, name, callback in (
            (InitTarget, "~/init_target", self._on_init_target),
            (DropTarget, "~/drop_target", self._on_drop_target),
            (SetBool, "~/set_enabled", self._on_set_enabled),
        ):
            node.create_service(kind, name, callback, callback_group=MutuallyExclusiveCallbackGroup())

    def _on_init_target(self, request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        def init(requests: Requests) -> str:
            started = requests.init_target(request.stamp, request.bbox, request.normalized, request.id)
            response.stamp, response.reached = started.stamp, started.reached
            response.frames_caught_up = started.images
            return started.message

        return self._answer("init_target", response, init)

    def _on_drop_target(self, request: DropTarget.Request, response: DropTarget.Response) -> DropTarget.Response:
        return self._answer("drop_target", response, lambda requests: requests.drop_target(request.id))

    def _on_set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return self._answer("set_enabled", response, lambda requests: requests.set_enabled(request.data))

    def _answer(self, name: str, response: Response, act: Callable[[Requests], str]) -> Response:
        """Carry out a request; fill in and log what came of it."""
        try:
            requests = self._requests()
            if requests is None:
                remedy = self._status_error() or "configure and activate the node, or start it with autostart:=true"
                raise RequestRefused(f"the tracker is not active: {remedy}")
            response.message = act(requests)
            response.success = True
            self._logger.info(f"{name}: {response.message}")
        except RequestRefused as error:
            response.message = str(error)
            self._logger.warning(f"{name} refused: {error}")
        except Exception as error:  # whoever asked must get an answer
            response.message = f"the request failed: {type(error).__name__}: {error}; the log has more"
            self._logger.error(f"{name} failed:\n{traceback.format_exc()}")
        return response
