"""Makes .venv with the Python that runs this, or says that it is too old; written so that any Python 3 can read it."""

import subprocess
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - that is what this script finds out
    sys.exit(
        "AutoVoice needs Python 3.11 or newer, and this is {}.{}. "
        "Name another one, for example: make PYTHON=python3.12 run".format(*sys.version_info[:2])
    )
sys.exit(subprocess.call([sys.executable, "-m", "venv", ".venv"]))
