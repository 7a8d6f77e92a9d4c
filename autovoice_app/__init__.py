"""AutoVoice's window and command line; everything they ask for is done by the engine."""

__version__ = "0.1.0"
