"""The function app of a project of its own, whose function_app.py is `from coremachine.app import app`."""

import os
from pathlib import Path

from triggers.functions import load_app

__all__ = ["app"]

# Azure's host names the app's folder so; the worker's own folder is the same one elsewhere.
app = load_app(Path(os.environ.get("AzureWebJobsScriptRoot") or Path.cwd()))  # noqa: SIM112 - Azure's name
