# SPDX-License-Identifier: Apache-2.0
"""What the tracker node reports about itself and its input on /diagnostics."""
