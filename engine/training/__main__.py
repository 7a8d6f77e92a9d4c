"""Run one stage of the recipe: python -m engine.training STAGE --corpus DIR --cache DIR --run DIR."""

import argparse
import importlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from engine.errors import AutoVoiceError
from engine.training.config import Orders, read_config

# Each module has run(settings, orders); its settings lie in configs/STAGE.toml.
STAGES = {
    "align": "engine.training.align",
    "content": "engine.training.content",
    "separator": "engine.training.separator",
    "speaker": "engine.training.speaker",
    "decoder": "engine.training.decoder",
    "voices": "engine.training.demo_voices",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the stage; 0 when it ended well, 1 when the user must act."""
    parser = argparse.ArgumentParser(prog="python -m engine.training", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--config", type=Path, help="TOML file; default: configs/STAGE.toml of this package")
    parser.add_argument("--size", choices=("cpu", "gpu"), default="cpu", help="which table of the file to use")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override loop.steps=900 etc.")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with train/manifest.csv and dev/manifest.csv"
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for decoded audio, features and labels")
    parser.add_argument("--run", type=Path, required=True, help="folder for saved state and TensorBoard logs")
    parser.add_argument("--resume", action="store_true", help="go on from the saved state of the run folder")
    parser.add_argument("--until", type=int, metavar="STEP", help="stop after this step, to go on later with --resume")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="stop after this time, save, validate and publish; then as --until"
    )
    options = parser.parse_args(arguments)
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        settings = read_config(options.config, options.stage, options.size, options.set)
        from engine.training.loop import process_group

        with process_group() as own_device:
            torch_device = str(own_device or ("cuda" if options.size == "gpu" else "cpu"))
            orders = Orders(
                options.corpus, options.cache, options.run, options.resume, options.until, deadline, torch_device
            )
            importlib.import_module(STAGES[options.stage]).run(settings, orders)
    except AutoVoiceError as error:
        sys.stderr.write(f"{error.message} {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
