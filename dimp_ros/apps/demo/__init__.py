# SPDX-License-Identifier: Apache-2.0
"""The demo: a video published as a camera, and a recorder that checks the tracker's results."""
