"""The wheel in an environment of its own, as a user has it: the checkout is not on its path."""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coremachine.local.stack_file import StackInfo, find_stack_of
from tests.acceptance.steps import PROJECT_ROOT, wait_until

UV = str(Path(sys.executable).with_name("uv"))
PACKAGES = sysconfig.get_path("purelib")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and with the packages of the tests' own that it needs."""

    folder: Path
    wheel: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *command: str, cwd: Path, code: int | None = 0, **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        """A command of the environment in a folder.

        Args:
            code: The exit code that is expected; None for any.
        """
        done = subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=cwd,
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert code is None or done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done

    def run_tool(
        self, module: str, *arguments: str, cwd: Path, code: int | None = 0, **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        """A tool of Python, by its module; mypy as a program would be, since it looks where it was started."""
        start = f"import sys, runpy; sys.argv[0] = {module!r}; runpy.run_module({module!r}, run_name='__main__')"
        return self.run("python", "-c", start, *arguments, cwd=cwd, code=code, **settings)

    def environment(self, **settings: str) -> dict[str, str]:
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        kept = {name: text for name, text in os.environ.items() if name not in hidden and "COREMACHINE" not in name}
        return {**kept, "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]]), **settings}

    @contextmanager
    def up(self, folder: Path, *options: str, **settings: str) -> Iterator[tuple["subprocess.Popen[str]", StackInfo]]:
        """`coremachine up` in a folder, on free ports, as its user starts it."""
        ports = ["--port", "0", "--amqp-port", "0", "--admin-port", "0", "--workers", "1"]
        log = folder.with_name(f"{folder.name}-up.log")
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(self.folder / "bin" / "coremachine"), "up", *ports, *options],
                cwd=folder,
                env=self.environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

            def ready() -> StackInfo | None:
                assert process.poll() is None, log.read_text()
                return find_stack_of(folder) if "Ctrl-C" in log.read_text() else None

            try:
                yield process, wait_until(ready, "the stack is up", 120)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def build_wheel(folder: Path, project: Path = PROJECT_ROOT) -> Path:
    """Without a network, by the build system of this environment."""
    options = ["--wheel", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable]
    done = subprocess.run(
        [UV, "build", *options, "--out-dir", str(folder)], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, *, packages: bool = True) -> Installed:
    """A new environment with the wheel. COREMACHINE_TEST_INSTALL=real installs what it needs from the package index.

    Args:
        packages: Whether it has the packages that the wheel's commands and its tests need: those of this environment.
    """
    if packages and os.environ.get("COREMACHINE_TEST_INSTALL") == "real":
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python, wanted = str(folder / "bin" / "python"), f"{wheel}[local,raster,test]"
        # As in the Makefile: uv reads no pip.conf.
        if subprocess.run([UV, "pip", "install", "--quiet", "--python", python, wanted], check=False).returncode:
            subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True)
        return Installed(folder, wheel)
    subprocess.run([UV, "venv", "--quiet", "--offline", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    options = ["--quiet", "--offline", "--no-deps", "--python", python]
    subprocess.run([UV, "pip", "install", *options, str(wheel)], check=True)
    if packages:
        # A folder that is named so has no say: the editable installation of the checkout is a file in it.
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "packages.pth").write_text(f"{PACKAGES}\n")
    return Installed(folder, wheel)
