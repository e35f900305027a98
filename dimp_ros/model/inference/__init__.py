# SPDX-License-Identifier: Apache-2.0
"""The networks as they are run for tracking: fused, packed, restricted to regions."""
