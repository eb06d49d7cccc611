"""The project's app; which of the two releases it is, COREMACHINE_JOBS says."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("project_function_app", Path(__file__).parents[3] / "function_app.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
app = _module.app
