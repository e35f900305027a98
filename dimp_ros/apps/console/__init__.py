# SPDX-License-Identifier: Apache-2.0
"""The operator console: a web page with live video on which a person points at targets; see docs/console.md."""
