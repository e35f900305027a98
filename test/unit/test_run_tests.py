# SPDX-License-Identifier: Apache-2.0
"""Which tests `make test` runs in two processes."""

from __future__ import annotations

import pytest
from run_tests import PROCESSES, options


@pytest.mark.parametrize("given", [[], ["-k", "pooling"], ["--strict-skips"], ["test/unit"], ["-m", "not slow"]])
def test_many_tests_run_in_two_processes(given):
    assert options(given, installed=True) == [*PROCESSES, *given]
    assert options(given, installed=False) == given


@pytest.mark.parametrize(
    "given", [[__file__], [f"{__file__}::test_one", "-q"], ["--pdb"], ["-s"], ["-n", "4"], ["-n0"]]
)
def test_a_file_and_a_debugger_run_in_one(given):
    assert options(given, installed=True) == given
