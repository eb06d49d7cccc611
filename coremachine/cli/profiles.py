"""Profiles: servers by name, each with its address and how its keys are found.

They are in the user's own `coremachine/config.toml` (below XDG_CONFIG_HOME, else ~/.config), and in
`[tool.coremachine.profiles]` of the pyproject.toml of this folder or the nearest one above; of two of a name, the
user's own counts. A pyproject.toml is shared: it may name no key and no command.
"""

import os
import stat
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coremachine.cli.errors import UsageProblem
from coremachine.cli.render import say

USUAL_FILE = Path("coremachine", "config.toml")
_PROJECT_FIELDS = ("url", "key_env", "role_key_env", "scope")
_OWN_FIELDS = (*_PROJECT_FIELDS, "key", "role_key", "key_command", "role_key_command")
# What a command may take that asks a vault.
_COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Profile:
    """One of a file. `fields` are as written there."""

    name: str
    file: Path
    fields: Mapping[str, Any]

    @property
    def url(self) -> str:
        return str(self.fields["url"])

    @property
    def place(self) -> str:
        return f"profile {self.name} of {self.file}"

    def find_key(self, kind: str) -> str | None:
        """The key, from the place that the profile names; None where it names none.

        Args:
            kind: key or role_key.

        Raises:
            UsageProblem: It names a place, and no key is there.
        """
        if variable := self.fields.get(f"{kind}_env"):
            return self._from_environment(variable)
        if command := self.fields.get(f"{kind}_command"):
            return self._from_command(command)
        key = self.fields.get(kind)
        if key and self.file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            say(f"{self.file} has a key, and others can read it: chmod 600 {self.file}")
        return key

    def how_keys_are_found(self) -> str:
        """In a few words, without any secret."""
        return ", ".join(_how(name, value) for name, value in self.fields.items() if name != "url")

    def _from_environment(self, variable: str) -> str:
        key = os.environ.get(variable)
        if not key:
            raise UsageProblem(f"{self.place}: expected a key in {variable}, found nothing")
        return key

    def _from_command(self, command: list[str]) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - the user's own file names it
                command, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageProblem(f"{self.place}: expected a key from {command[0]}, found: {error}") from error
        key = done.stdout.strip()
        if done.returncode or not key:
            # What it wrote on stdout may be a secret.
            found = done.stderr.strip()[-500:] or "no output"
            raise UsageProblem(f"{self.place}: expected a key from {command[0]}, found code {done.returncode}: {found}")
        return key


def read_profiles() -> dict[str, Profile]:
    """All profiles by name.

    Raises:
        UsageProblem: A file cannot be read, or a profile has what it may not have.
    """
    project = {each.name: each for each in _of_project()}
    return {**project, **{each.name: each for each in _of_user()}}


def find_profile(name: str) -> Profile:
    """Raises UsageProblem where there is none of this name."""
    found = read_profiles()
    if name not in found:
        known = f"one of {', '.join(sorted(found))}" if found else "no name, since there are no profiles"
        advice = f"write it into {user_file()}" if found else f"leave it out, or write the profile into {user_file()}"
        raise UsageProblem(f"--profile, COREMACHINE_PROFILE: expected {known}, found {name!r}; {advice}")
    return found[name]


def user_file() -> Path:
    """The user's own file, which need not be there."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / USUAL_FILE


def _of_user() -> Iterator[Profile]:
    file = user_file()
    if file.is_file():
        yield from _profiles(file, _read(file).get("profiles"), _OWN_FIELDS)


def _of_project() -> Iterator[Profile]:
    here = Path.cwd()
    file = next(
        (folder / "pyproject.toml" for folder in (here, *here.parents) if (folder / "pyproject.toml").is_file()), None
    )
    if file is not None:
        tool = _read(file).get("tool")
        settings = tool.get("coremachine") if isinstance(tool, dict) else None
        yield from _profiles(file, settings.get("profiles") if isinstance(settings, dict) else None, _PROJECT_FIELDS)


def _profiles(file: Path, table: Any, known: tuple[str, ...]) -> Iterator[Profile]:
    if table is not None and not isinstance(table, dict):
        raise UsageProblem(f"{file}: expected profiles as a table, found {type(table).__name__}")
    for name, fields in (table or {}).items():
        place = f"{file}, profile {name}"
        if not isinstance(fields, dict) or not isinstance(fields.get("url"), str):
            raise UsageProblem(f"{place}: expected a table with the text url, found {fields!r:.100}")
        for field, value in fields.items():
            if field not in known:
                raise UsageProblem(f"{place}: expected {', '.join(known)}, found {field}")
            _check(place, field, value)
        yield Profile(name, file, fields)


def _check(place: str, field: str, value: Any) -> None:
    if field.endswith("_command"):
        is_right = isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)
        expected = "a list of texts: a program and its arguments"
    else:
        is_right, expected = isinstance(value, str) and bool(value), "a text"
    if not is_right:
        raise UsageProblem(f"{place}: expected {field} as {expected}, found {type(value).__name__}")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(f"{file}: expected a TOML file that can be read, found: {error}") from error


def _how(name: str, value: Any) -> str:
    if name.endswith("_env"):
        return f"{name.removesuffix('_env')} in {value}"
    if name.endswith("_command"):
        return f"{name.removesuffix('_command')} from {value[0]}"
    return f"az login for {value}" if name == "scope" else f"{name} in the file"
