from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from csv_to_parquet import CsvToParquet
from pyarrow import parquet

from coremachine.testing import run_job


@pytest.fixture
def server():
    """Answers the first request for a file with 503; below /gone there is nothing."""
    asked = Counter()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] += 1
            status = 404 if self.path.startswith("/gone") else 503 if asked[self.path] == 1 else 200
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"city,count\nOslo,1\nRoma,2\n" if status == 200 else b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        running.asked = asked
        yield running
        running.shutdown()
        thread.join()


def urls(server, *names):
    return [f"http://127.0.0.1:{server.server_port}/{name}" for name in names]


def test_files_that_come_at_the_second_attempt_are_converted(server, tmp_path):
    result = run_job(CsvToParquet, {"urls": urls(server, "a.csv", "b.csv"), "target": str(tmp_path)})
    assert result.status == "completed"
    assert result.summary["result"] == {"rows": 4, "missing": []}
    assert {task.attempt for task in result.stage("csv_file").tasks} == {2}
    files = [tmp_path / each["file"] for each in result.stage("csv_file").results]
    assert parquet.read_table(files[0]).to_pylist() == [{"city": "Oslo", "count": 1}, {"city": "Roma", "count": 2}]
    assert set(tmp_path.iterdir()) == set(files)


def test_one_missing_file_of_five_is_tolerated(server, tmp_path):
    wanted = urls(server, "a", "b", "c", "d", "gone/e")
    result = run_job(CsvToParquet, {"urls": wanted, "target": str(tmp_path)})
    assert result.status == "completed_with_errors"
    assert result.summary["result"] == {"rows": 8, "missing": [wanted[-1]]}
    assert server.asked["/gone/e"] == 5


def test_more_missing_files_fail_the_job(server, tmp_path):
    result = run_job(CsvToParquet, {"urls": urls(server, "a", "gone/b"), "target": str(tmp_path)})
    assert result.status == "failed"
    assert result.failures[0].error["message"] == "HTTP Error 404: Not Found"
