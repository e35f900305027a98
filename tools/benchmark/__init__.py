# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes, against what the device can do and against others; see docs/performance.md."""
