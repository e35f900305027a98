# SPDX-License-Identifier: Apache-2.0
"""The tracker as a lifecycle node: images in, detections and the target's state out, requests as services."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from dimp_ros.node.history import FrameHistory
from dimp_ros.node.image_watch import explain_silence
from dimp_ros.node.loading import TrackerFactory, TrackerUnavailable, load_tracker
from dimp_ros.node.parameters import ParameterHandler
from dimp_ros.node.pipeline import Pipeline, RequestRefused
from dimp_ros.node.publishing import Outputs
from dimp_ros.node.qos import image_qos, subscription_options
from dimp_ros.node.spinning import run
from dimp_ros.node.target import Tracker
from dimp_ros.srv import DropTarget, InitTarget

CLOSE_SECONDS = 0.7
"""How long the end of the program waits for the inference in progress."""

DEACTIVATE_SECONDS = 20.0
"""How long deactivation waits for it: if it takes longer something hangs, and the tracker is given up."""

WARNING_PERIOD_SECONDS = 10.0

Response = TypeVar("Response", InitTarget.Response, DropTarget.Response, SetBool.Response)
Transition = Callable[["TrackerNode", LifecycleState], TransitionCallbackReturn]


def _guarded(on_failure: TransitionCallbackReturn) -> Callable[[Transition], Transition]:
    """Log what a lifecycle callback raises, which rclpy would discard, and return ``on_failure``.

    An error that an operator can mend is one line; any other comes with its traceback.
    """

    def decorate(transition: Transition) -> Transition:
        @wraps(transition)
        def guarded(self: TrackerNode, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(self, state)
            except TrackerUnavailable as error:
                self.trouble = str(error)
                self.get_logger().error(str(error))
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                self.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return on_failure

        return guarded

    return decorate


class TrackerNode(LifecycleNode):
    """Follows one target. Callbacks only take notes; all work on images is done by the pipeline's thread.

    Each kind of callback has a group of its own, so that with a multi-threaded executor none waits for another:
    images are received while a request waits for the tracker, requests are answered while a model is loaded.

    :param tracker_factory: makes the tracker on configuration; tests and other trackers come in here.
    """

    def __init__(
        self, node_name: str = "tracker_node", *, tracker_factory: TrackerFactory = load_tracker, **node_options: Any
    ) -> None:
        self._pipeline: Pipeline | None = None  # rclpy may destroy the node before its construction is complete
        super().__init__(node_name, **node_options)
        self._tracker_factory = tracker_factory
        self._settings = ParameterHandler(self)
        self.trouble = ""
        """Why the node is not active, as far as it is not merely waiting to be told: the last transition's failure."""
        self._tracker: Tracker | None = None
        self._outputs: Outputs | None = None
        self._image_qos = image_qos()
        self._subscription: Subscription[Image] | None = None
        for kind, name, callback in (
            (InitTarget, "~/init_target", self._on_init_target),
            (DropTarget, "~/drop_target", self._on_drop_target),
            (SetBool, "~/set_enabled", self._on_set_enabled),
        ):
            self.create_service(kind, name, callback, callback_group=MutuallyExclusiveCallbackGroup())
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # timers run whatever simulated time does
        self._watch = self.create_timer(1.0, self._on_watch, clock=steady)
        self._autostart: Timer | None = None
        if self._settings["autostart"]:
            self._autostart = self.create_timer(0.0, self._on_autostart, clock=steady)

    # Life

    def _on_autostart(self) -> None:
        assert self._autostart is not None
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    @_guarded(TransitionCallbackReturn.FAILURE)
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open the output topics."""
        self._release()
        self.trouble = "the model is being loaded, ask again in a moment"
        self.get_logger().info(f"loading model {self._settings['model']!r}")
        self._tracker = self._tracker_factory(self._settings)
        self._outputs = Outputs(self)
        self._settings.frozen = True
        self.trouble = ""
        return super().on_configure(state)

    @_guarded(TransitionCallbackReturn.FAILURE)
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to images and start the thread that works on them."""
        assert self._tracker is not None and self._outputs is not None
        settings = self._settings
        history = FrameHistory(settings["history_seconds"], settings["history_megabytes"] * 2**20)
        pipeline = Pipeline(
            self._tracker, self._outputs, history, self.get_logger(), self._silence, settings["request_timeout"]
        )
        self._image_qos = image_qos()  # the overrides are written into it
        self._subscription = self.create_subscription(
            Image,
            "image",
            pipeline.receive,
            self._image_qos,
            callback_group=MutuallyExclusiveCallbackGroup(),
            **subscription_options(),
        )
        self._pipeline = pipeline
        pipeline.start()
        self.trouble = ""
        self.get_logger().info(f"active: images from {self._subscription.topic_name}")
        return super().on_activate(state)

    @_guarded(TransitionCallbackReturn.ERROR)
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working and forget target and images; the model stays loaded."""
        self._stop_pipeline(DEACTIVATE_SECONDS)
        return super().on_deactivate(state)

    @_guarded(TransitionCallbackReturn.ERROR)
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model and close the output topics."""
        self._release()
        return super().on_cleanup(state)

    @_guarded(TransitionCallbackReturn.ERROR)
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything, from whatever state."""
        self._stop_pipeline(DEACTIVATE_SECONDS)
        self._release()
        return super().on_shutdown(state)

    @_guarded(TransitionCallbackReturn.FAILURE)
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything, so that the node can be configured anew."""
        self._pipeline = None
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> bool:
        """Say good-bye and stop the thread, outside of the life cycle; return whether the thread has ended."""
        pipeline = self._pipeline
        return pipeline is None or pipeline.stop(CLOSE_SECONDS)

    def destroy_node(self) -> None:
        """Stop the thread, then destroy the node."""
        self.close()
        super().destroy_node()

    def _stop_pipeline(self, timeout: float) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None and not pipeline.stop(timeout):
            raise TrackerUnavailable(f"the tracker has not returned for {timeout:g} s and is given up: configure anew")

    def _release(self) -> None:
        self._tracker = None
        self._settings.frozen = False
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    # Requests

    def _on_init_target(self, request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        def init(pipeline: Pipeline) -> str:
            wanted = request.stamp, request.bbox, request.normalized, request.id
            message, response.stamp = pipeline.init_target(*wanted)
            return message

        return self._answer("init_target", response, init)

    def _on_drop_target(self, request: DropTarget.Request, response: DropTarget.Response) -> DropTarget.Response:
        return self._answer("drop_target", response, lambda pipeline: pipeline.drop_target(request.id))

    def _on_set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return self._answer("set_enabled", response, lambda pipeline: pipeline.set_enabled(request.data))

    def _answer(self, name: str, response: Response, act: Callable[[Pipeline], str]) -> Response:
        """Carry out a request on the pipeline; fill in and log what came of it."""
        try:
            pipeline = self._pipeline
            if pipeline is None:
                remedy = self.trouble or "configure and activate the node, or start it with autostart:=true"
                raise RequestRefused(f"the tracker is not active: {remedy}")
            response.message = act(pipeline)
            response.success = True
            self.get_logger().info(f"{name}: {response.message}")
        except RequestRefused as error:
            response.message = str(error)
            self.get_logger().warning(f"{name} refused: {error}")
        return response

    # Watch

    def _silence(self) -> str:
        return explain_silence(self, self.resolve_topic_name("image"), self._image_qos)

    def _on_watch(self) -> None:
        limit = self._settings["no_image_warning"]
        pipeline = self._pipeline
        silent = 0.0 if pipeline is None else time.monotonic() - pipeline.last_image
        if 0.0 < limit < silent:
            self.get_logger().warning(
                f"no image for {silent:.0f} s: {self._silence()}", throttle_duration_sec=WARNING_PERIOD_SECONDS
            )


def main(args: Sequence[str] | None = None, *, tracker_factory: TrackerFactory = load_tracker) -> int:
    """Run the node until SIGINT or SIGTERM."""
    return run(lambda _finish: TrackerNode(tracker_factory=tracker_factory), args)


if __name__ == "__main__":
    sys.exit(main())
