# SPDX-License-Identifier: Apache-2.0
"""Data sets: one interface, and a reader per published layout."""
