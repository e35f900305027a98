# SPDX-License-Identifier: Apache-2.0
"""The networks as files for other runtimes."""
