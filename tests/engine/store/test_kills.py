import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


def run_kills(folder, kills, seed):
    command = [sys.executable, "-m", "tests.engine.store.kills", str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == kills
    return result


def test_a_store_killed_at_12_random_moments_stays_whole(tmp_path):
    assert run_kills(tmp_path, 12, seed=1)["voices"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_store_killed_at_200_random_moments_stays_whole(tmp_path):
    result = run_kills(tmp_path, 200, seed=2)
    print(json.dumps(result))  # noqa: T201 - `make kills` shows it
    assert {"create", "import", "rename", "improve", "delete"} <= set(result["killed_in"])
