"""`autovoice devices`: list microphones and loudspeakers."""

import argparse
from dataclasses import asdict

from autovoice_app.cli import print_json
from engine.devices import AudioDevice, PortAudioBackend, system_devices

RATES = (16000, 44100, 48000, 96000)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("devices", help="list microphones and loudspeakers with their rates")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the devices."""
    backend = system_devices()
    devices = backend.devices(refresh=True)
    if options.json:
        print_json([{**asdict(device), "sample_rates": _rates(backend, device)} for device in devices])
        return
    if not devices:
        print("There are no audio devices.")
    for device in devices:
        marks = ["default input"] * device.is_default_input + ["default output"] * device.is_default_output
        channels = f"{device.max_input_channels} in, {device.max_output_channels} out"
        rates = "/".join(f"{rate / 1000:g}" for rate in _rates(backend, device))
        print(f"{device.id}")
        print(f"    {device.name}: {channels}, {rates} kHz{''.join(f', {mark}' for mark in marks)}")


def _rates(backend: PortAudioBackend, device: AudioDevice) -> list[int]:
    is_input = device.max_input_channels > 0
    return [rate for rate in RATES if backend.supports(device, rate, is_input=is_input)]
