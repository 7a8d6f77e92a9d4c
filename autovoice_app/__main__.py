"""Run the command line with `python -m autovoice_app`."""

from autovoice_app.cli import start

if __name__ == "__main__":
    start()
