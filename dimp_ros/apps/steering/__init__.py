# SPDX-License-Identifier: Apache-2.0
"""Robots that follow a target: the follower (velocity commands) and the visual servo (camera twists)."""
