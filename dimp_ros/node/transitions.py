# SPDX-License-Identifier: Apache-2.0
"""What every transition of the life cycle needs: nothing that goes wrong in it may be swallowed."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from dimp_ros.node.loading import TrackerUnavailable

Node = TypeVar("Node", bound=Any)
Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


def guarded(on_failure: TransitionCallbackReturn) -> Callable[[Transition[Node]], Transition[Node]]:
    """Log what a lifecycle callback raises, which rclpy would discard, and return ``on_failure``.

    An error that an operator can mend is one line; any other comes with its traceback. The node's ``trouble`` keeps it.
    """

    def decorate(transition: Transition[Node]) -> Transition[Node]:
        @wraps(transition)
        def wrapper(self: Node, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(self, state)
            except TrackerUnavailable as error:
                self.trouble = str(error)
                self.get_logger().error(str(error))
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                self.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return on_failure

        return wrapper

    return decorate
