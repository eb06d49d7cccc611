"""Resource validators against real folders and fsspec's memory file system."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from jobs import validators
from jobs.parameters import ParameterErrors
from jobs.validators import ResourceInvalid, resource_validator, run_resource_validators

SOURCE = {"type": "source_exists", "param": "source"}
FOLDER = {"type": "folder_writable", "param": "target"}


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.pipe({"/validators/a.tif": b"1", "/validators/deep/b.TIF": b"2", "/validators/c.txt": b"3"})
    yield system
    system.rm("/validators", recursive=True)


def found_by(config: dict[str, Any], parameters: dict[str, Any]) -> str:
    with pytest.raises(ParameterErrors) as caught:
        run_resource_validators([config], parameters)
    (error,) = caught.value.errors
    assert error.field == config["param"]
    return error.message


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_source_is_counted_by_suffix(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.tif").touch()
    (tmp_path / "deep" / "b.TIF").touch()
    source = {"source": f"{scheme}{tmp_path}"}
    run_resource_validators([{**SOURCE, "suffixes": [".tif"], "min_files": 2}], source)
    assert "at least 3 files ending in .tif, found 2" in found_by(
        {**SOURCE, "suffixes": [".tif"], "min_files": 3}, source
    )
    assert "found 0" in found_by({**SOURCE, "suffixes": [".jp2"]}, source)


def test_a_source_may_be_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    run_resource_validators([{**SOURCE, "suffixes": [".tif"]}], {"source": str(tmp_path / "a.tif")})


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    assert "nothing at" in found_by(SOURCE, {"source": str(tmp_path / "none")})


def test_a_url_is_looked_up_through_fsspec(memory: Any) -> None:
    run_resource_validators([{**SOURCE, "suffixes": [".tif"], "min_files": 2}], {"source": "memory://validators"})
    run_resource_validators([SOURCE], {"source": "memory://validators/c.txt"})
    assert "found 2" in found_by({**SOURCE, "suffixes": [".tif"], "min_files": 3}, {"source": "memory://validators"})
    assert "nothing at" in found_by(SOURCE, {"source": "memory://elsewhere"})


def test_an_unknown_scheme_is_refused() -> None:
    assert "a readable file or folder" in found_by(SOURCE, {"source": "nosuch://x"})


def test_a_folder_whose_parents_are_missing_can_be_created(tmp_path: Path) -> None:
    run_resource_validators([FOLDER], {"target": str(tmp_path / "a" / "b")})
    assert not (tmp_path / "a").exists()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "expected a folder" in found_by(FOLDER, {"target": str(tmp_path / "file" / "b")})


def test_a_folder_without_write_access_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the system is replaced: for root every folder is writable."""
    monkeypatch.setattr(validators.os, "access", lambda *_: False)
    assert "no write access" in found_by(FOLDER, {"target": str(tmp_path)})


def test_an_absent_parameter_is_left_to_the_schema_and_all_problems_come_at_once(tmp_path: Path) -> None:
    run_resource_validators([SOURCE, FOLDER], {"source": None})
    (tmp_path / "file").touch()
    with pytest.raises(ParameterErrors) as caught:
        run_resource_validators([SOURCE, FOLDER], {"source": "/none/such", "target": str(tmp_path / "file")})
    assert [error.field for error in caught.value.errors] == ["source", "target"]


def test_an_unknown_validator_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(LookupError, match="did you mean 'source_exists'"):
        run_resource_validators([{"type": "source_exist", "param": "x"}], {})
    with pytest.raises(LookupError, match="'param'"):
        run_resource_validators([{"type": "source_exists"}], {})


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        resource_validator("source_exists")(lambda *_: None)


def test_resource_invalid_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(ResourceInvalid("a", "b", "c", "d"))).error.hint == "d"  # noqa: S301


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_folders_inside_do_not_count_where_they_are_not_read(tmp_path: Path, memory: Any, scheme: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.tif").touch()
    (tmp_path / "deep" / "b.TIF").touch()
    source = {"source": "memory://validators" if scheme == "memory://" else f"{scheme}{tmp_path}"}
    config = {**SOURCE, "suffixes": [".tif"], "min_files": 2}
    run_resource_validators([config], source)
    assert "at least 2 files ending in .tif, found 1 in" in found_by({**config, "recursive": False}, source)
