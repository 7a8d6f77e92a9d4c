"""Data files shipped with AutoVoice, read through importlib.resources only."""
