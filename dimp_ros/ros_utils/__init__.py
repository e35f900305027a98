# SPDX-License-Identifier: Apache-2.0
"""ROS plumbing shared by all nodes: executor, QoS, parameters, subscriptions, Fast DDS."""
