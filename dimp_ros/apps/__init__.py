# SPDX-License-Identifier: Apache-2.0
"""Programs around the tracker: follower, visual servo, simulator, operator console, video source and demo."""
