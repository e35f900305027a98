# SPDX-License-Identifier: Apache-2.0
"""A second run in the folder of one that goes on is refused."""

import pytest

from dimp_ros.training.cli import main
from dimp_ros.training.run_lock import sole_run


def test_a_second_run_in_one_folder_is_refused(tmp_path, capsys):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text("model: dimp_lite\n")
    with sole_run(run):
        assert main([str(config), "--images", str(tmp_path / "images"), "--folder", str(run)]) == 2
        assert not list(run.iterdir())
    assert "another run writes into" in capsys.readouterr().err


def test_the_folder_is_free_after_a_run(tmp_path):
    for _ in range(2):
        with sole_run(tmp_path):
            pass
    with pytest.raises(KeyError), sole_run(tmp_path):
        raise KeyError
    with sole_run(tmp_path):
        pass
