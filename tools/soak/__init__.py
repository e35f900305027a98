# SPDX-License-Identifier: Apache-2.0
"""The soak test: a node under load for a long time; see `make soak`."""
