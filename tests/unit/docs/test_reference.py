"""The generated pages are those of this code, and their tables leave nothing out."""

import re

import pytest

from coremachine.cli import overview
from coremachine.cli.errors import Exit
from coremachine.reference import commands, parameter_types, settings_page
from coremachine.reference.events import EVENTS
from coremachine.reference.log_table import GROUPS, RECORDS
from coremachine.reference.pages import FOLDER, PAGES, is_current, write_pages
from coremachine.reference.problem_codes import CODES
from coremachine.reference.sources import functions_of, sql_files, sql_functions
from infrastructure.settings import Settings
from jobs.parameter_schema import COMMON_KEYS, KEYS_OF_TYPE
from tests.unit.docs import in_code


@pytest.mark.parametrize("name", list(PAGES))
def test_page_is_current(name):
    assert is_current(FOLDER / name, PAGES[name]()), f"docs/reference/{name} is old; run: make reference"


def test_only_pages_that_differ_are_written(tmp_path, monkeypatch):
    for name in PAGES:
        monkeypatch.setitem(PAGES, name, lambda name=name: f"text of {name}")
    assert set(write_pages(tmp_path)) == set(PAGES)
    (tmp_path / "events.md").write_text("something else")
    assert write_pages(tmp_path) == ["events.md"]
    assert write_pages(tmp_path) == []


def test_every_event_of_the_timeline_is_explained_and_recorded():
    assert in_code.recorded_events() == set(EVENTS)


def test_every_problem_code_is_explained_and_raised():
    assert in_code.raised_codes() == set(CODES)


def test_problem_codes_have_the_status_of_the_code():
    found = in_code.raised_statuses()
    assert len(found) > 15
    assert found == {name: CODES[name][0] for name in found}


def test_every_finding_of_explain_is_on_its_page():
    """Five were missing, one of them the most usual: waits_for_limit."""
    text = (FOLDER / "operations.md").read_text()
    (section,) = re.findall(r"\n## Why does a job not move\?\n(.*?)\n## ", text, re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    explained = {code for row in rows for code in re.findall("`(.*?)`", row)}
    assert in_code.finding_codes() - explained == set()
    assert explained - in_code.literals() == {overview.NOT_ALL}  # of the command line alone


class TestLog:
    def test_every_record_is_explained(self):
        assert set(in_code.logged_levels()) - set(RECORDS) == set()

    def test_every_explained_record_is_written(self):
        """Some names are put together at run time: they are texts of the code all the same, perhaps as checkpoints."""
        known = in_code.literals() | set(in_code.logged_levels())
        assert [name for name in RECORDS if not {name, name.upper()} & known] == []

    def test_levels_are_those_of_the_code(self):
        found = {name: levels for name, levels in in_code.logged_levels().items() if levels}
        assert found == {name: set(RECORDS[name].level.split(", ")) for name in found}

    def test_no_field_is_left_out(self):
        common = {"checkpoint", "correlation_id"}
        for name, fields in in_code.logged_fields().items():
            assert fields - common <= set(re.findall(r"\w+", RECORDS[name].fields)), name

    def test_fields_are_names(self):
        """A sentence among them became a list of its words."""
        assert [name for name in RECORDS if not re.fullmatch(r"(\w+( \w+)*)?", RECORDS[name].fields)] == []

    def test_checkpoints_are_those_of_the_code(self):
        named = {record.checkpoint for record in RECORDS.values()} - {""}
        assert in_code.checkpoints() - named == set()
        assert named - in_code.literals() == set()

    def test_each_record_is_in_one_group(self):
        assert len(RECORDS) == sum(map(len, GROUPS.values()))


class TestSettings:
    def test_every_field_has_a_meaning(self):
        assert set(settings_page.MEANINGS) == set(Settings.model_fields)

    def test_each_of_two_ways_names_the_other(self):
        """Each was shown as optional, and an app without both does not start."""
        (connection,) = re.findall(r"^\| `ServiceBusConnection` .*", settings_page.render(), re.MULTILINE)
        (namespace,) = re.findall(
            r"^\| `ServiceBusConnection__fullyQualifiedNamespace` .*", settings_page.render(), re.MULTILINE
        )
        assert "| required without `ServiceBusConnection__fullyQualifiedNamespace`, refused beside it |" in connection
        assert "| required without `ServiceBusConnection`, refused beside it |" in namespace

    def test_every_variable_of_the_project_is_on_the_page(self):
        page = settings_page.render()
        sources = in_code.python_files("core", "coremachine/cli", "infrastructure", "jobs", "triggers")
        variables = {name for path in sources for name in re.findall(r"\"(COREMACHINE_[A-Z_]+)\"", path.read_text())}
        variables.discard("COREMACHINE_SOURCE")  # a tag in rasters
        variables.discard("COREMACHINE_")
        assert len(variables) > 20
        assert [name for name in variables if f"`{name}`" not in page] == []


def test_every_exit_code_is_on_the_page():
    page = commands.render()
    assert [value for value in Exit if f"| `{int(value)}` |" not in page] == []


def test_every_command_has_a_help_and_every_option_a_meaning():
    for name, command in commands.find_commands():
        assert command.help, name
        assert [option.name for option in command.params if not getattr(option, "help", None)] == [], name


def test_every_parameter_type_and_key_is_explained():
    assert set(parameter_types.TYPES) == set(KEYS_OF_TYPE)
    assert set(parameter_types.KEYS) == {*COMMON_KEYS, *(key for keys in KEYS_OF_TYPE.values() for key in keys)}


class TestSqlSource:
    def test_every_function_of_the_files_is_found(self):
        created = [
            name
            for path in sql_files()
            for name in re.findall(r"function \{schema\}\.(\w+)\s*\([^)]*\)[^;]*?returns", path.read_text())
        ]
        assert sorted(function.name for function in sql_functions()) == sorted(created)

    def test_a_function_is_read_with_its_comment_and_arguments(self):
        text = "-- Of the file.\n\n-- Adds. Locks: none.\ncreate or replace function {schema}.add(a int, -- first)\n"
        text += "  b int default (1)) returns table (sum int)\nlanguage sql as $$ select 1 $$;"
        (found,) = functions_of(text, "numbers.sql")
        assert (found.name, found.arguments) == ("add", "a int, b int default (1)")
        assert (found.returns, found.comment) == ("table (sum int)", "Adds. Locks: none.")

    def test_arguments_are_split_at_their_own_commas(self):
        assert in_code.split_arguments("a, f(b, c), 'd, e', array[1, 2]") == ["a", "f(b, c)", "'d, e'", "array[1, 2]"]
