# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of every input of the package; see `make fuzz`."""
