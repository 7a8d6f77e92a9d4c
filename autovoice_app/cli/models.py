"""`autovoice models`: list, download, add and remove models."""

import argparse
from pathlib import Path

from autovoice_app.cli import print_json, run_with_progress
from engine.models import PUBLISHED, ModelInfo, add_model, download_model, installed_models, remove_model


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command with its verbs."""
    parser = subparsers.add_parser("models", help="list, download, add and remove models")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    listing = verbs.add_parser("list", help="what is installed and what can be downloaded")
    listing.add_argument("--json", action="store_true", help="print everything as JSON")
    listing.set_defaults(run=run_list)

    adding = verbs.add_parser("add", help="install a separator from a file, for machines without a network")
    adding.add_argument("file", type=Path, metavar="FILE", help="a Demucs .th file or a .safetensors file of AutoVoice")
    adding.add_argument("--json", action="store_true", help="print the model as JSON")
    adding.set_defaults(run=run_add)

    download = verbs.add_parser("download", help="download a model; goes on where it was interrupted")
    download.add_argument("name", metavar="NAME", help=f"one of {', '.join(PUBLISHED)}")
    download.add_argument("--json", action="store_true", help="print the model as JSON")
    download.add_argument("--quiet", action="store_true", help="show no progress")
    download.set_defaults(run=run_download)

    removing = verbs.add_parser("remove", help="remove a downloaded or added model")
    removing.add_argument("name", metavar="NAME")
    removing.add_argument("--json", action="store_true", help="print what was removed as JSON")
    removing.set_defaults(run=run_remove)


def run_list(options: argparse.Namespace) -> None:
    """Print the installed and the downloadable models."""
    installed = installed_models()
    names = {info.name for info in installed}
    missing = [model for model in PUBLISHED.values() if model.name not in names]
    if options.json:
        print_json(
            {
                "installed": [info.as_json() for info in installed],
                "downloadable": [
                    {"name": m.name, "title": m.title, "size": m.size, "licence": m.licence, "url": m.url}
                    for m in missing
                ],
            }
        )
        return
    for info in installed:
        state = "" if info.size else "  MISSING"
        print(f"{info.name:16} {info.kind:10} {_size(info.size):>9}  {info.licence:12} {info.source}{state}")
    for model in missing:
        print(f"{model.name:16} {'separator':10} {_size(model.size):>9}  {model.licence:12} can be downloaded")


def run_add(options: argparse.Namespace) -> None:
    """Install a file."""
    _tell(add_model(options.file), "Added", options.json)


def run_download(options: argparse.Namespace) -> None:
    """Download and install a published model."""
    info = run_with_progress(lambda ctx: download_model(options.name, ctx), quiet=options.quiet)
    _tell(info, "Installed", options.json)


def run_remove(options: argparse.Namespace) -> None:
    """Remove a model of the user's."""
    remove_model(options.name)
    if options.json:
        print_json({"removed": options.name})
    else:
        print(f"Removed {options.name}.")


def _tell(info: ModelInfo, what: str, as_json: bool) -> None:
    if as_json:
        print_json(info.as_json())
    else:
        print(f"{what} {info.name} ({_size(info.size)}): {info.path}")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
