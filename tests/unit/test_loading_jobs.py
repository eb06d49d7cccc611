"""Job classes and handlers of a project: found in its package, with reasons where they cannot be."""

import sys

import pytest

from core.project_file import ProjectFileError, read_project_settings
from jobs.base import JobDefinitionError
from jobs.loading import ModuleNotLoaded, NoJobs, discover, load_module

JOB = """
from coremachine import Handler, JobBase, JobBaseMixin, Task

class {name}(JobBaseMixin, JobBase):
    job_type = "{name}"
    stages = [{{"number": 1, "name": "one", "task_type": "{name}_work", "parallelism": "single"}}]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [Task()]

    @staticmethod
    def finalize_job(context):
        return {{}}

def work(params, context):
    return {{}}

{handlers}
"""


def job(name, handlers="HANDLERS = (Handler('{name}_work', work, queue='tasks'),)"):
    return JOB.format(name=name, handlers=handlers.format(name=name))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes the modules of a package, which can be imported until the end of the test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(**modules):
        (tmp_path / "mine").mkdir()
        for name, text in {"__init__": "", **modules}.items():
            path = tmp_path / "mine" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return "mine"

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_all_modules_of_a_package_are_looked_through(package):
    three = job("three", "ONE = Handler('three_work', work, queue='tasks')")
    below = {"deep__in____init__": "", "deep__in__three": three}
    name = package(two=job("two"), one=job("one"), **below)
    registry = discover(name, ["tasks"])
    assert registry.job_types == ("one", "three", "two")
    assert registry.find_handler("three_work").queue == "tasks"


def test_handlers_that_are_declared_beside_their_functions_are_found_in_any_module(package):
    """In the job's own module the registry finds them; elsewhere nobody else would."""
    marked = "from coremachine import handler\n\n@handler('one_work')\ndef work(params, context):\n    return {}\n"
    package(one=job("one", ""), two=marked, three="from mine.two import work\n")
    assert discover("mine", ["tasks"]).find_handler("one_work").queue == "tasks"


def test_one_module_will_do(package):
    package(one=job("one"), two=job("two"))
    assert discover("mine.one", ["tasks"]).job_types == ("one",)


MARKED = """
from coremachine import handler

@handler("{name}_work")
def work(params, context):
    return {{}}
"""


def test_marked_handlers_are_found_in_any_module_and_once(package):
    """In the job's module or another; a module that imports one does not have it again."""
    without = job("a", "from .steps import work as b_work")
    name = package(a=without, steps=MARKED.format(name="a"), z=job("z", MARKED))
    registry = discover(name, ["tasks"])
    found = {task_type: registry.find_handler(task_type).function.__module__ for task_type in ("a_work", "z_work")}
    assert found == {"a_work": "mine.steps", "z_work": "mine.z"}


def test_a_class_that_a_module_imports_is_not_there_twice(package):
    package(one=job("one"), two="from mine.one import HANDLERS, one\n")
    assert discover("mine", ["tasks"]).job_types == ("one",)


def test_tests_and_private_modules_are_not_imported(package):
    broken = "raise RuntimeError('imported')\n"
    package(one=job("one"), _private=broken, test_one=broken, conftest=broken, tests__in____init__=broken)
    assert discover("mine", ["tasks"]).job_types == ("one",)


def test_a_package_without_jobs_is_told(package):
    package(one="A = 1\n")
    with pytest.raises(NoJobs, match=r"expected a job class in mine, found none in mine, mine\.one; add one with"):
        discover("mine", ["tasks"])


def test_what_does_not_fit_together_is_told(package):
    package(one=job("one", "HANDLERS = ()"))
    with pytest.raises(JobDefinitionError, match=r"no handler for task type 'one_work'"):
        discover("mine", ["tasks"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A = 1\ndef work(:\n    pass\n", "mine/one.py, line 2: SyntaxError: invalid syntax: def work(:"),
        ("if True:\nA = 1\n", "mine/one.py, line 2: IndentationError: expected an indented block"),
        (
            "\nimport no_such_package\n",
            "mine/one.py, line 2: expected the module 'no_such_package', found none",
        ),
        ("\n\nA = B\n", "mine/one.py, line 3: NameError: name 'B' is not defined"),
        ("from coremachine import Nothing\n", "mine/one.py, line 1: ImportError: cannot import name 'Nothing'"),
        ("import json\njson.loads('{')\n", "mine/one.py, line 2: JSONDecodeError: "),
        (
            "import sys\nsys.exit(4)\n",
            "mine/one.py, line 2: expected a module that can be imported, found sys.exit(4) when it is imported; ",
        ),
        ("class Stop(BaseException):\n    pass\nraise Stop('no')\n", "mine/one.py, line 3: Stop: no"),
        (
            "import mine.nothing\n",
            "found none; see its name: mine is mine/__init__.py, and has no such module",
        ),
        ("A = '\0'\n", "module mine.one: "),
        (
            "class Odd(Exception):\n    def __str__(self): raise KeyError(1)\nraise Odd\n",
            "mine/one.py, line 3: Odd: <Odd whose text cannot be read: KeyError>",
        ),
        ("raise ValueError('\\ud800')\n", "mine/one.py, line 1: ValueError: ?"),
        ("import mine.two\n", "mine/three.py, line 1: ImportError: cannot import name 'y' from partially initialized"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_place(package, text, reason):
    package(one=text, two="from mine.three import x\n", three="from mine.two import y\nx = 1\n")
    with pytest.raises(ModuleNotLoaded) as refused:
        discover("mine", ["tasks"])
    assert reason in str(refused.value)


def test_ctrl_c_is_no_fault_of_the_module_that_is_imported(package):
    package(one="raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        discover("mine", ["tasks"])


def test_a_module_that_was_fixed_is_imported_anew(package, tmp_path):
    package(one="A = B\n")
    with pytest.raises(ModuleNotLoaded):
        load_module("mine.one")
    (tmp_path / "mine" / "one.py").write_text("A = 1234\n")
    assert load_module("mine.one").A == 1234


PROJECT = """
[project]
name = "mine"

[tool.coremachine]
jobs = "mine"

[tool.coremachine.queues]
jobs = "mine-jobs"
tasks = "mine-tasks"
raster = "mine-raster"
"""


def test_a_project_names_its_jobs_and_queues(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert read_project_settings(tmp_path) == {
        "COREMACHINE_JOBS": "mine",
        "COREMACHINE_JOBS_QUEUE": "mine-jobs",
        "COREMACHINE_TASK_QUEUES": "tasks=mine-tasks,raster=mine-raster",
    }


@pytest.mark.parametrize("text", [None, "", "[project]\nname = 'x'\n", "[tool.ruff]\nline-length = 1\n"])
def test_a_folder_without_the_table_has_no_settings(tmp_path, text):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert read_project_settings(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = \n", "expected TOML, found: "),
        ("[tool]\ncoremachine = 1\n", "[tool.coremachine]: expected a table, found 1"),
        (
            "[tool.coremachine]\njob = 'x'\n",
            "[tool.coremachine]: expected the keys jobs, queues, profiles, found 'job'",
        ),
        ("[tool.coremachine]\njobs = ['x']\n", "[tool.coremachine] jobs: expected the name of a package, such as"),
        ("[tool.coremachine]\nqueues = 'x'\n", "[tool.coremachine] queues: expected { jobs ="),
    ],
)
def test_what_the_table_cannot_have_is_told(tmp_path, text, problem):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ProjectFileError) as refused:
        read_project_settings(tmp_path)
    assert problem in str(refused.value)
    assert str(tmp_path / "pyproject.toml") in str(refused.value)
