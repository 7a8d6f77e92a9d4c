"""Names of voices, and where the data folder lies."""

import os
import unicodedata
from pathlib import Path

from engine.errors import StoreError

MAX_NAME_LENGTH = 80
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def clean_name(name: str) -> str:
    """A name as it would be kept, taken or not.

    Raises:
        StoreError: empty, too long or unprintable.
    """
    clean = unicodedata.normalize("NFC", " ".join(name.split()))
    if not clean:
        raise StoreError("A voice needs a name.")
    if len(clean) > MAX_NAME_LENGTH:
        raise StoreError(f"The name is too long: {len(clean)} characters.", hint=f"Use at most {MAX_NAME_LENGTH}.")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") for character in clean):
        raise StoreError("The name holds characters that cannot be shown.")
    return clean


def name_key(name: str) -> str:
    """What two names share when they count as the same."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def file_name(name: str) -> str:
    """A name as every system takes it for a file, without an ending."""
    clean = "".join("_" if letter in '<>:"/\\|?*' or ord(letter) < 32 else letter for letter in name).strip(" .")
    return f"_{clean}" if clean.split(".")[0].strip().casefold() in {"", *_DEVICES} else clean


def default_data_folder() -> Path:
    """AUTOVOICE_HOME, or the platform's usual place for a user's application data."""
    home = os.environ.get("AUTOVOICE_HOME")
    if home:
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("AutoVoice", appauthor=False))
