from inbox import Inbox

from coremachine.testing import run_job


def test_each_file_goes_to_the_handler_of_its_kind(tmp_path):
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    (tmp_path / "b.json").write_text("[1, 2, 3]")
    result = run_job(Inbox, {"folder": str(tmp_path)})
    assert result.status == "completed"
    assert [task.task_type for task in result.stage("inbox_file").tasks] == ["inbox_csv", "inbox_json"]
    assert result.summary["result"] == {"records": {"csv": 2, "json": 3}, "refused": {}}


def test_a_file_without_a_handler_is_reported_and_stops_no_other(tmp_path):
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "b.exe").write_text("")
    result = run_job(Inbox, {"folder": str(tmp_path)})
    assert result.status == "completed_with_errors"
    assert result.summary["result"] == {
        "records": {"csv": 1},
        "refused": {"b.exe": "expected a file that ends in .csv or .json, found b.exe"},
    }


def test_an_empty_inbox_is_no_error(tmp_path):
    assert run_job(Inbox, {"folder": str(tmp_path)}).summary["result"] == {"records": {}, "refused": {}}
