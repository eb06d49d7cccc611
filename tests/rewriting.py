"""Test files with their assertions rewritten, ahead of the processes that run them.

Each process of `pytest -n` collects all files at the same time. In a fresh checkout each would rewrite them all, which
takes as long as half of the collection again; so each is rewritten once, by as many processes as there are processors.
"""

import os
import sys
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, assertstate_key, get_cache_dir


def rewrite_ahead(config: pytest.Config) -> None:
    if sys.dont_write_bytecode or not hasattr(os, "fork"):
        return
    tops = [config.rootpath / top for top in config.getini("testpaths")]
    files = [path for top in tops for name in ("test_*.py", "conftest.py") for path in top.rglob(name)]
    old = [path for path in files if _is_older(_rewritten(path), path)]
    share = os.cpu_count() or 1
    started = [_fork(config, old[first::share]) for first in range(min(share, len(old)))]
    for process in started:
        os.waitpid(process, 0)


def _fork(config: pytest.Config, files: list[Path]) -> int:
    process = os.fork()
    if process == 0:
        try:
            for path in files:
                _rewrite(config, path)
        finally:
            os._exit(0)  # whatever went wrong, the tests meet it as they are collected
    return process


def _rewrite(config: pytest.Config, path: Path) -> None:
    source, code = _rewrite_test(path, config)
    target = _rewritten(path)
    target.parent.mkdir(exist_ok=True)
    _write_pyc(config.stash[assertstate_key], code, source, target)


def _rewritten(path: Path) -> Path:
    return Path(get_cache_dir(path), path.name.removesuffix(".py") + PYC_TAIL)


def _is_older(rewritten: Path, path: Path) -> bool:
    return not rewritten.exists() or rewritten.stat().st_mtime < path.stat().st_mtime
