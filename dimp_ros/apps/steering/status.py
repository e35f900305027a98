# SPDX-License-Identifier: Apache-2.0
"""The diagnostic status of the follower and the servo."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from dimp_ros.apps.steering.safety import Command


def steering_status(
    name: str, command: Command, *, enabled: bool, problems: str, camera_trouble: str
) -> DiagnosticStatus:
    """Return how a node that steers is, and why it does not if it does not.

    :param problems: with its parameters. :param camera_trouble: what is wrong with camera_info.
    """
    if problems:
        level, text = DiagnosticStatus.ERROR, problems
    elif not enabled:
        level, text = DiagnosticStatus.OK, "not enabled: the command is zero; call ~/set_enabled"
    elif command.reason:
        why = camera_trouble if camera_trouble and "camera_info" in command.reason else command.reason
        level, text = DiagnosticStatus.WARN, f"stopped: {why}"
    elif command.notes:
        level, text = DiagnosticStatus.WARN, f"moving: {'; '.join(command.notes)}"
    else:
        level, text = DiagnosticStatus.OK, "moving by the target"
    values = {
        "enabled": str(enabled).lower(),
        "linear (m/s)": ", ".join(f"{value:.3g}" for value in command.twist[:3]),
        "angular (rad/s)": ", ".join(f"{value:.3g}" for value in command.twist[3:]),
        "error": ", ".join(f"{value:.3g}" for value in command.error) or "none",
        "camera_info": camera_trouble or "usable",
    }
    entries = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=f"{name}: steering", message=text, values=entries)
