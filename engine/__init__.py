"""AutoVoice's engine: audio into audio, recordings into voices. It knows nothing of Qt, settings or user folders."""
