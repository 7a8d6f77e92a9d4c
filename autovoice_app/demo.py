"""What comes with the program to try it with."""

import importlib.resources
from functools import cache
from pathlib import Path


@cache
def demo_song() -> Path:
    """The bundled demo song, a file of the installed program."""
    return Path(str(importlib.resources.files("resources"))) / "demo" / "song.opus"
