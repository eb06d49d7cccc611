"""Exceptions of the local Functions host.

HostError
+-- SettingsError           host.json, local.settings.json or an app setting cannot be used
+-- NoAppError              a folder has no app
+-- AppLoadError            function_app.py cannot be loaded: nothing can run
|   +-- SignatureError      a function does not fit its bindings: Azure's worker refuses the app
+-- FunctionIndexError      one function cannot be indexed: the others still run
+-- ScheduleError           an NCRONTAB expression or TimeSpan cannot be parsed
+-- RouteTemplateError      an HTTP route template cannot be parsed
+-- BlobPathError           the path of a blob trigger cannot be parsed
+-- InvocationAbortedError  the worker is going down while the invocation runs
+-- HostStartError          the supervisor could not bring its workers up
"""

from __future__ import annotations

from pathlib import Path


def error_text(error: BaseException) -> str:
    """The text of an app's exception; its `__str__` is the app's code, and may fail itself."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - it is the app's code
        return f"(its __str__ raised {type(failure).__name__})"


class HostError(Exception):
    """Base of all errors that the host raises itself."""


class SettingsError(HostError):
    """host.json, local.settings.json or an app setting cannot be used."""


class MissingSettingError(SettingsError):
    """An app setting that a binding refers to does not exist."""

    def __init__(self, name: str, used_by: str) -> None:
        super().__init__(f"{used_by} needs the app setting {name!r}, which is not set: set it in the environment")
        self.name = name
        self.used_by = used_by


class NoAppError(HostError):
    """A folder has no app."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"expected host.json and function_app.py in {folder} or in a folder above it, found no host.json: "
            "go to the app's folder, or name it with --app-dir"
        )
        self.folder = folder


class AppLoadError(HostError):
    """function_app.py cannot be loaded: nothing can run."""


class SignatureError(AppLoadError):
    """A function does not fit its bindings, and Azure's worker refuses the whole app."""

    def __init__(self, function_name: str, problem: str) -> None:
        super().__init__(f"function {function_name!r} keeps the whole app from loading, as in Azure: {problem}")
        self.function_name = function_name
        self.problem = problem


class FunctionIndexError(HostError):
    """One function cannot be indexed; the others still run."""

    def __init__(self, function_name: str, problem: str) -> None:
        super().__init__(f"function {function_name!r} cannot be indexed: {problem}")
        self.function_name = function_name
        self.problem = problem


class ScheduleError(HostError):
    """An NCRONTAB expression or TimeSpan cannot be parsed."""

    def __init__(self, expression: str, problem: str) -> None:
        super().__init__(
            f"schedule {expression!r}: {problem}; expected 5 or 6 NCRONTAB fields "
            "([second] minute hour day month weekday) or a TimeSpan such as '00:05:00'"
        )
        self.expression = expression


class RouteTemplateError(HostError):
    """An HTTP route template cannot be parsed."""

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(f"route {template!r}: {problem}")
        self.template = template


class BlobPathError(HostError):
    """The path of a blob trigger cannot be parsed."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"path {path!r} of its blobTrigger: expected {expected}, found {found}")
        self.path = path


class InvocationAbortedError(HostError):
    """The worker is going down while the invocation runs."""


class HostStartError(HostError):
    """The supervisor could not bring its workers up."""
