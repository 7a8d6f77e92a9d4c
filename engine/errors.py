"""Failures that a user can act on, and the one that means a job was stopped."""


class AutoVoiceError(Exception):
    """A failure the user can act on.

    Attributes:
        message: One sentence for the screen.
        hint: What to try; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class AudioFileError(AutoVoiceError):
    """A file is unreadable, empty or of an unsupported kind, or cannot be written."""


class AudioDeviceError(AutoVoiceError):
    """A device is missing, busy, unplugged, or refuses a rate."""


class ModelError(AutoVoiceError):
    """A model is absent, damaged (wrong hash) or of another version."""


class OutOfMemoryError(AutoVoiceError):
    """Memory ran out; the hint names the setting to lower."""


class EnrollmentError(AutoVoiceError):
    """A recording cannot become a voice: too short, silent, clipped, or of several people."""


class StoreError(AutoVoiceError):
    """The store is locked, full, damaged or newer than this program."""


class EngineBusyError(AutoVoiceError):
    """The models are in use by another job."""


class TrainingError(AutoVoiceError):
    """A training run cannot start or go on: its manifest, configuration, cache or saved state is unusable."""


class Cancelled(Exception):  # noqa: N818 - stopping is not failing, so it is not named an error
    """The user stopped a job; stands outside AutoVoiceError because stopping is not failing."""
