import gzip

from log_analytics import LogAnalytics

from coremachine.testing import MessageFaults, run_job

LINE = '10.0.0.1 - - [28/Nov/2026:10:00:00 +0000] "GET {path} HTTP/1.1" {status} 512 "-" "curl"\n'


def write_logs(folder):
    lines = [LINE.format(path="/a?x=1", status=200)] * 3 + [LINE.format(path="/a", status=503)]
    (folder / "one.log").write_text("".join(lines))
    with gzip.open(folder / "two.log.gz", "wt") as file:
        file.write(LINE.format(path="/b", status=404) + "no request at all\n")
    (folder / "notes.txt").write_text("not a log")


def test_requests_and_errors_of_all_files_are_counted(tmp_path):
    write_logs(tmp_path)
    result = run_job(LogAnalytics, {"folder": str(tmp_path)})
    assert result.status == "completed"
    assert result.summary["result"] == {"requests": 5, "errors": 1, "top": [["/a", 4, 1], ["/b", 1, 0]]}


def test_the_report_is_the_same_whatever_happens_to_messages(tmp_path):
    write_logs(tmp_path)
    faults = MessageFaults(duplicated=1.0, reordered=True, lost=0.5)
    result = run_job(LogAnalytics, {"folder": str(tmp_path), "top": 1}, faults=faults, crash_at="task.ran")
    assert result.summary["result"]["top"] == [["/a", 4, 1]]


def test_a_damaged_file_among_few_fails_the_job_with_its_name(tmp_path):
    write_logs(tmp_path)
    (tmp_path / "bad.log.gz").write_bytes(b"no gzip")
    result = run_job(LogAnalytics, {"folder": str(tmp_path)})
    assert result.status == "failed"
    assert [(task.name, task.attempt) for task in result.failures] == [("bad.log.gz", 1)]
