# SPDX-License-Identifier: Apache-2.0
"""A camera in a drawn world with one moving target, moved by velocity commands: to close loops without a robot.

`dimp_ros.apps.simulator.world.World` is the whole of it without ROS, stepped on a clock of its own; `node` puts it on
topics. docs/simulator.md has the conventions.
"""
