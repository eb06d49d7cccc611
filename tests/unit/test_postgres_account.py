"""The user that root lends PostgreSQL."""

import pwd
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, current_thread
from typing import Any

import pytest

from coremachine.local import postgres_account

FIRST_STARTS = 4


class Users:
    """Where `useradd` has no lock: each call of it that meets no other one adds the user, under another number."""

    def __init__(self) -> None:
        self.added: list[int] = []
        self.all_have_looked = Barrier(FIRST_STARTS)
        self._that_looked: set[Any] = set()

    def find(self, name: str) -> pwd.struct_passwd:
        if current_thread() not in self._that_looked:
            self._that_looked.add(current_thread())
            found = self.added[-1:]
            self.all_have_looked.wait(30)
        else:
            found = self.added[-1:]
        if not found:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", found[0], found[0], "", "/", "/bin/sh"))

    def add(self, *_: object, **__: object) -> None:
        self.added.append(900 + len(self.added))


def test_first_starts_at_once_make_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two `useradd` at once, the second replaced the account that the first start had begun to use."""
    users = Users()
    monkeypatch.setattr(pwd, "getpwnam", users.find)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/sbin/useradd")
    monkeypatch.setattr(subprocess, "run", users.add)
    with ThreadPoolExecutor(FIRST_STARTS) as starts:
        accounts = list(starts.map(lambda _: postgres_account._lent_account(), range(FIRST_STARTS)))
    assert users.added == [900]
    assert {account.uid for account in accounts} == {900}


@pytest.mark.parametrize("tool", [None, "/etc/hostname"], ids=["no useradd", "one that is no program"])
def test_where_no_account_can_be_made_the_server_runs_as_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tool: str | None
) -> None:
    nobody = pwd.getpwnam("nobody")

    def find(name: str) -> pwd.struct_passwd:
        if name != "nobody":
            raise KeyError(name)
        return nobody

    monkeypatch.setattr(pwd, "getpwnam", find)
    monkeypatch.setattr(shutil, "which", lambda _: tool)
    account = postgres_account._lent_account()
    assert (account.uid, account.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert "no user pgserver could be made" in caplog.text
