# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by tests and developer tools: ROS test harness, bags, cameras, messages."""
