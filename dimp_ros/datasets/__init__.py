# SPDX-License-Identifier: Apache-2.0
"""Training data: one small interface, and a reader for each published layout."""
