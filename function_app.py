"""What Azure Functions loads: the functions of this app's mode; `triggers.functions` has them."""

from pathlib import Path

from triggers.functions import load_app

app = load_app(Path(__file__).parent)
