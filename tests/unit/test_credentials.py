"""What opens something is found and blanked; words about it are not."""

import json

import pytest

from core.credentials import BLANK, find_credential, redact

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN"

# The text, and what of it must not be read anywhere.
CREDENTIALS = [
    ("https://a.blob.core.windows.net/c/f.tif?sv=2024&sig=abc%2Fdef", "abc%2Fdef"),
    ("https://a.blob.core.windows.net/c/f.tif?SV=2024&SIG=ABCDEF", "ABCDEF"),
    ("https://x/?redirect=https%3A%2F%2Fy%3Fsig%3Dabcdef", "abcdef"),
    ("Password=hunter2", "hunter2"),
    ("Server=db;User Id=me;PASSWORD = hunter2;Timeout=3", "hunter2"),
    ("DB_PASSWORD=hunter2", "hunter2"),
    ("mypassword='hunter2'", "hunter2"),
    ("token=abc123", "abc123"),
    ("next_token=abc123", "abc123"),
    ("?access_token=abc123&x=1", "abc123"),
    ("client_secret=s3", "s3"),
    ("api_key=k-1", "k-1"),
    ("Api-Key=k-1", "k-1"),
    ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=Zm9v==;EndpointSuffix=core", "Zm9v"),
    ("Endpoint=sb://n/;SharedAccessKeyName=r;SharedAccessKey=Zm9v=", "Zm9v"),
    ("sharedaccesssignature=sr%3Dx", "sr%3Dx"),
    ('{"password": "hunter2"}', "hunter2"),
    ("{'AccountKey': 'Zm9v'}", "Zm9v"),
    ("Authorization: Bearer abc.def-123", "abc.def-123"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("sent with bearer 8d3f7a", "8d3f7a"),
    ("BEARER abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
    ("postgresql://user:p4ss@db/x", "p4ss"),
    ("redis://:p4ss@cache", "p4ss"),
    (f"key is {PEM} there", "MIIEow"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEow cut off", "MIIEow"),
    (f"it was {JWT}.", "dozjgNryP4J3jVmN"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("aws_secret_access_key=wJalr/XUtnFEMI", "wJalr"),
    ("https://s3/x?X-Amz-Signature=fe5f80", "fe5f80"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abc"),
]
HARMLESS = [
    "",
    "the token has expired, wrong password",
    "secret: none",
    "bearer certificate is missing",
    "basic information",
    "https://host/path?design=4&config=5",
    "abfs://container@account.dfs.core.windows.net/rasters",
    "git@github.com:owner/name.git",
    "user@example.com",
    "C:\\data\\keys",
    "max_tokens=x is no token",
    "-----BEGIN CERTIFICATE-----\nMIIB",
    "12:30:05",
    "eyJust a word. Another one. And one more",
    "sigma=0.5",
    "the sig=nature",
]


@pytest.mark.parametrize(("text", "secret"), CREDENTIALS)
def test_credential_is_found_and_blanked(text, secret):
    found = find_credential(text)
    assert found is not None
    assert secret not in found.kind
    blanked = redact(text)
    assert secret not in blanked
    assert BLANK in blanked
    assert redact(blanked) == blanked
    assert find_credential(blanked) is None


@pytest.mark.parametrize("text", HARMLESS)
def test_words_are_no_credential(text):
    assert find_credential(text) is None
    assert redact(text) == text


def test_surroundings_of_a_secret_stay():
    text = "open https://a/c/f.tif?sv=1&SIG=abc&se=2 failed for postgresql://me:pw@db/x"
    assert redact(text) == "open https://a/c/f.tif?sv=1&SIG=***&se=2 failed for postgresql://me:***@db/x"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [{"b": "x?sig=abc"}]}, "a[0].b"),
        ({"a": {"Password": "x"}}, "a.Password"),
        ({"apiKey": "x"}, "apiKey"),
        ({"api_key": "x"}, "api_key"),
        ({"Client-Secret": 1234}, "Client-Secret"),
        ([["a", ["postgres://u:p@h"]]], "[0][1][0]"),
        ({"x?sig=abc": 1}, ""),
    ],
)
def test_it_is_found_however_deep(value, path):
    found = find_credential(value)
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize(
    "value",
    [
        {
            "max_tokens": 5,
            "token": None,
            "password": "",
            "secret": False,
            "token_count": 7,
            "secret_name": "in-the-vault",
        },
        [1, 2.5, None, True, {"a": {}}],
        json.loads("[" * 500 + "]" * 500),
    ],
)
def test_values_that_open_nothing_pass(value):
    assert find_credential(value) is None


@pytest.mark.parametrize(
    "piece",
    [
        "-eyJ",
        "eyJ",
        "://a:",
        "://",
        "-----BEGIN PRIVATE KEY-----",
        "bearer a",
        "bearer ",
        "sig",
        "=",
        "password ",
        "a",
        "authorization: ",
        "token= ",
        "AKIA",
        "x-amz-",
        "'",
        " ",
    ],
)
def test_time_grows_with_the_length_alone(piece):
    """A pattern that looks back over what it read takes hours here, and the suite's own timeout ends it."""
    text = "=@:eyJ" + piece * (1_000_000 // len(piece))
    assert len(redact(text)) <= len(text) + text.count(piece)
    find_credential(text)
