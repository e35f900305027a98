# SPDX-License-Identifier: Apache-2.0
"""Annotated videos and result summaries, shared by the programs that record."""
