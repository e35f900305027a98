# SPDX-License-Identifier: Apache-2.0
"""The tracker as a lifecycle node: images in, detections and target states out, requests as services."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.timer import Timer

from dimp_ros.node.detection_input import DetectorInput
from dimp_ros.node.diagnostics.publisher import Reporter
from dimp_ros.node.diagnostics.statistics import Statistics
from dimp_ros.node.diagnostics.status import LOADING, Snapshot
from dimp_ros.node.drop_log import DropLog
from dimp_ros.node.image_buffer import ImageBuffer
from dimp_ros.node.pipeline import Pipeline
from dimp_ros.node.position.estimator import PositionEstimator
from dimp_ros.node.publishers import Publishers
from dimp_ros.node.requests import Requests
from dimp_ros.node.services import Services
from dimp_ros.node.tracker_loader import (
    TrackerFactory,
    TrackerUnavailable,
    is_out_of_memory,
    load_tracker,
    tracker_config,
)
from dimp_ros.ros_utils.callbacks import guard_services, logged
from dimp_ros.ros_utils.image_decoder import ImageDecoder
from dimp_ros.ros_utils.image_topic_monitor import explain_silence, publisher_trouble
from dimp_ros.ros_utils.malloc import bound_allocator
from dimp_ros.ros_utils.namesakes import NamesakeWatch
from dimp_ros.ros_utils.override_checks import unused_qos_overrides
from dimp_ros.ros_utils.parameters import Change, ParameterHandler
from dimp_ros.ros_utils.qos import image_qos
from dimp_ros.ros_utils.spin import run
from dimp_ros.ros_utils.subscriptions import IMAGE_TYPES, Inputs, image_topic
from dimp_ros.ros_utils.text import shortened, traceback_text
from dimp_ros.tracker.target_set import Tracker

CLOSE_SECONDS = 0.7
"""How long the end of the program waits for the inference in progress."""

DEACTIVATE_SECONDS = 20.0
"""How long deactivation waits for it: after that the tracker hangs, and is given up."""


def guarded(on_failure: TransitionCallbackReturn) -> Callable[[Transition[Node]], Transition[Node]]:
    """Log what a lifecycle callback raises, which rclpy would discard, and return ``on_failure``.

    An error that the operator can fix is one line; any other comes with its traceback. ``status_error`` keeps it.
    """

    def decorate(transition: Transition[Node]) -> Transition[Node]:
        @wraps(transition)
        def wrapper(self: Node, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(self, state)
            except TrackerUnavailable as error:
                self.status_error = shortened(str(error))
                self.get_logger().error(self.status_error)
            except Exception as error:
                self.status_error = shortened(f"{type(error).__name__}: {error}")
                self.get_logger().error(f"{transition.__name__} failed:\n{traceback_text(error)}")
            finally:
                self.loading = False
            return on_failure

        return wrapper

    return decorate


Node = TypeVar("Node", bound=Any)


Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


class Work(NamedTuple):
    """What exists while the node is active."""

    pipeline: Pipeline
    requests: Requests
    inputs: Inputs


class TrackerNode(LifecycleNode):
    """Follows targets. Callbacks return at once; all work on images is done by the pipeline's thread.

    Each kind of callback has a group of its own, so that with a multi-threaded executor none waits for another: images
    are received while a request waits for the tracker, requests are answered while a model is loaded.

    :param tracker_factory: makes the tracker on configuration; for tests and other trackers.
    """

    def __init__(
        self, node_name: str = "tracker_node", *, tracker_factory: TrackerFactory = load_tracker, **node_options: Any
    ) -> None:
        self._work: Work | None = None  # rclpy may destroy the node before its construction is complete
        super().__init__(node_name, **node_options)
        self._tracker_factory = tracker_factory
        self._settings = ParameterHandler(self)
        self._settings.on_change(self._on_parameters)
        self.status_error = ""
        """The failure of the last transition; empty if it succeeded."""
        self.loading = False
        """Whether the model is being loaded, or will be at once."""
        self._drops = DropLog()
        self._enabled = threading.Event()  # a pause outlasts a deactivation
        self._enabled.set()
        self._tracker: Tracker | None = None
        self._outputs: Publishers | None = None
        self._positioner = PositionEstimator()
        self._statistics = Statistics()
        self._reporter = Reporter(self)
        self._namesakes = NamesakeWatch(self)
        Services(
            self,
            lambda: self._work.requests if self._work else None,
            lambda: LOADING if self.loading else self.status_error,
        )
        guard_services(self)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # timers run whatever simulated time does
        # Its own group: queries of the graph may take a while, and requests must not wait for them.
        self._watch = self.create_timer(
            self._settings["diagnostics_period"],
            logged(self._on_watch, self.get_logger()),
            clock=self._steady,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self._autostart: Timer | None = None
        if self._settings["autostart"]:
            self.loading = True
            self._autostart = self.create_timer(0.0, self._on_autostart, clock=self._steady)

    # Life

    def _on_autostart(self) -> None:
        assert self._autostart is not None
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.loading = True  # not over for those who wait for the active node
            self.trigger_activate()

    @guarded(TransitionCallbackReturn.FAILURE)
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open the output topics."""
        self._release()
        settings = self._settings
        try:
            settings.require_valid()
            settings.read_tracker_config()
        except ValueError as error:
            raise TrackerUnavailable(str(error)) from error
        self.loading = True
        self.get_logger().info(f"loading model {settings['model']!r}")
        self._tracker = self._tracker_factory(settings)
        settings.adopt(self._tracker.config)
        for note in settings.notes:
            self.get_logger().warning(note)
        self._positioner = PositionEstimator(
            rectified=settings["rectified"],
            target_width=settings["target_width"],
            depth_tolerance=settings["depth_tolerance"],
            max_depth_bytes=settings["depth_megabytes"] * 2**20,
        )
        self._outputs = Publishers(self, self._positioner, settings, self._drops)
        settings.frozen = True
        self.status_error = ""
        return super().on_configure(state)

    @guarded(TransitionCallbackReturn.FAILURE)
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to images and start the thread that works on them."""
        assert self._tracker is not None and self._outputs is not None
        settings, logger = self._settings, self.get_logger()
        self._statistics = Statistics()
        self._reporter.start_over()
        history = ImageBuffer(settings["history_seconds"], settings["history_megabytes"] * 2**20)
        pipeline = Pipeline(
            self._tracker,
            self._outputs,
            history,
            logger,
            settings,
            self._statistics,
            ImageDecoder(settings),
            self._enabled,
            logged(self._recover, logger),
        )
        requests = Requests(pipeline, settings, logger, self._silence, self._drops)
        inputs = Inputs(
            self,
            settings["image_transport"],
            on_image=pipeline.receive,
            on_camera_info=self._positioner.on_camera_info,
            on_depth=self._positioner.on_depth if settings["use_depth"] else None,
            on_detections=DetectorInput(pipeline, requests, settings, logger).receive,
            required=self._required_inputs(),
        )
        self._work = Work(pipeline, requests, inputs)
        pipeline.start()
        self.status_error = ""
        for text in unused_qos_overrides(self):
            logger.warning(text)
        logger.info(f"active: images from {inputs.image_topic}")
        return super().on_activate(state)

    @guarded(TransitionCallbackReturn.ERROR)
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working and forget target and images; the model stays loaded, and paused what is paused."""
        self._stop_work(DEACTIVATE_SECONDS)
        return super().on_deactivate(state)

    @guarded(TransitionCallbackReturn.ERROR)
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and close the output topics."""
        self._release()
        return super().on_cleanup(state)

    @guarded(TransitionCallbackReturn.ERROR)
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state."""
        self._stop_work(DEACTIVATE_SECONDS)
        self._release()
        self.status_error = "a lifecycle transition has shut the node down: start it again"
        return super().on_shutdown(state)

    @guarded(TransitionCallbackReturn.FAILURE)
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, so that the node can be configured again."""
        self._work = None
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> bool:
        """Publish that the targets are gone and stop the thread; return whether it has ended."""
        return self._work is None or self._work.pipeline.stop(CLOSE_SECONDS)

    def destroy_node(self) -> None:
        """Stop the thread, then destroy the node, with what rclpy leaves of a lifecycle node.

        That holds the DDS participant, whose shared memory would stay in /dev/shm when the process ends.
        """
        self.close()
        super().destroy_node()
        machine = getattr(self, "_state_machine", None)
        if machine is not None:
            machine.destroy_when_not_in_use()

    def _stop_work(self, timeout: float) -> None:
        work, self._work = self._work, None
        if work is None:
            return
        self._drops.add("")
        work.inputs.destroy()
        ended = work.pipeline.stop(timeout)
        self._positioner.clear()
        if not ended:
            raise TrackerUnavailable(f"the tracker has not returned for {timeout:g} s and is given up: configure again")

    def _release(self) -> None:
        self._tracker = None
        self._settings.frozen = False
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    def _on_parameters(self, change: Change) -> None:
        """Give the tracker a new configuration before its next image."""
        work, tracker = self._work, self._tracker
        if "diagnostics_period" in change.values:
            self._watch.timer_period_ns = int(change.values["diagnostics_period"] * 1e9)
        if change.config is not None and tracker is not None:
            apply = partial(setattr, tracker, "config", tracker_config(self._settings, tracker))
            if work is None:
                apply()
            else:
                work.pipeline.submit(apply)

    def _recover(self, error: Exception) -> None:
        """Continue on the CPU, in the worker's thread, when the GPU has no memory left."""
        tracker = self._tracker
        if not is_out_of_memory(error) or not self._settings["device_fallback"]:
            return
        note = f"the CPU is used since the GPU has failed ({str(error).strip().splitlines()[0][:200]})"
        if tracker is not None and str(tracker.device) != "cpu":
            tracker.to("cpu")
            self._settings.notes.append(note)
            self.get_logger().error(note)

    # Watch

    def _silence(self) -> str:
        return self._ask_graph(explain_silence)

    def _ask_graph(self, question: Callable[[Any, str, QoSProfile, type], str]) -> str:
        """Return the answer of `image_topic_monitor` to a question about the publishers of the images."""
        work, transport = self._work, self._settings["image_transport"]
        qos = work.inputs.images.qos if work else image_qos()
        return question(self, image_topic(self, transport), qos, IMAGE_TYPES[transport])

    def _on_watch(self) -> None:
        """Publish diagnostics, log new problems, adapt to publishers, and restart a thread that has died."""
        if self._work is not None:
            self._work.inputs.adapt()
        self._reporter.report(self._snapshot())
        if self._work is not None and (exit_cause := self._work.pipeline.exit_cause):
            self.get_logger().error(
                f"the tracker's thread has ended by itself ({exit_cause}): it is restarted; set the targets again"
            )
            self.trigger_deactivate()
            self.trigger_activate()

    def _required_inputs(self) -> list[str]:
        """Return the inputs without which the parameters ask for positions in vain."""
        settings = self._settings
        depth = ["depth"] if settings["use_depth"] else []
        return ["camera_info", *depth] if depth or settings["target_width"] > 0 else []

    def _snapshot(self) -> Snapshot:
        """Return the state of the node for diagnostics."""
        work, tracker, settings = self._work, self._tracker, self._settings
        pipeline = work.pipeline if work else None
        silent = time.monotonic() - pipeline.last_image if pipeline else 0.0
        limit = settings["no_image_warning"]
        return Snapshot(
            active=pipeline is not None,
            status_error=self.status_error,
            notes=list(settings.notes),
            model=settings["model"],
            device=str(tracker.device) if tracker else settings["device"],
            device_bytes=tracker.device_bytes() if tracker else None,
            topic=image_topic(self, settings["image_transport"]),
            figures=self._statistics.snapshot(),
            silent=silent,
            silence=self._silence() if 0.0 < limit < silent else "",
            held=pipeline.history.held if pipeline else (0, 0),
            estimates=pipeline.estimates if pipeline else (),
            late=pipeline.late if pipeline else (),
            enabled=pipeline.enabled if pipeline else False,
            position=self._positioner.complaint,
            inputs=work.inputs.problem(limit) if work else "",
            publishers=self._ask_graph(publisher_trouble) if work else "",
            namesakes=self._namesakes.check(),
            loading=self.loading,
        )


def main(args: Sequence[str] | None = None, *, tracker_factory: TrackerFactory = load_tracker) -> int:
    """Run the node until SIGINT or SIGTERM."""
    bound_allocator()
    return run(lambda _finish: TrackerNode(tracker_factory=tracker_factory), args)


if __name__ == "__main__":
    sys.exit(main())
