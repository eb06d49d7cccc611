"""What the text that an HTTP function returns becomes."""

import pytest

from coremachine.local.host.http import text_response

PLAIN = {"content-type": "text/plain; charset=utf-8"}


@pytest.mark.parametrize(
    ("text", "status", "headers", "body"),
    [
        ("hello", 200, PLAIN, b"hello"),
        ('{"id": 7}', 200, PLAIN, b'{"id": 7}'),
        ('["body"]', 200, PLAIN, b'["body"]'),
        ('{"body": ', 200, PLAIN, b'{"body": '),
        ('{"body": "made", "statusCode": 201}', 201, PLAIN, b"made"),
        ('{"Body": {"a": 1}, "status": "202"}', 202, PLAIN, b'{"a":1}'),
        ('{"body": null, "status": "odd"}', 200, PLAIN, b""),
        (
            '{"body": "{}", "headers": {"Content-Type": "application/json", "X-N": 1}}',
            200,
            {"content-type": "application/json", "x-n": "1"},
            b"{}",
        ),
    ],
)
def test_json_with_a_body_describes_the_response_and_other_text_is_its_body(text, status, headers, body):
    """So does Azure's host: an app that returns such text by chance notices it here."""
    response = text_response(text)
    assert (response.status, dict(response.headers), response.body) == (status, headers, body)
