"""What opens something is found and blanked; words about it are not."""

import json
import time

import pytest

from core.safety.credentials import BLANK, find_credential, redact

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
    ("endpoint=https://x.communication.azure.com/;accesskey=Zm9vYmFy==", "Zm9vYmFy"),
    ("Endpoint=https://x.service.signalr.net;AccessKey=Zm9vYmFy;Version=1.0;", "Zm9vYmFy"),
    ("secret_key=s3", "s3"),
    ("AZURE_STORAGE_ACCOUNT_KEY=Zm9v", "Zm9v"),
    ("AWS_SESSION_TOKEN=FwoGZXIv", "FwoGZXIv"),
    ("https://x.azurewebsites.net/api/f?code=aB3dEfGhIjKlMnOpQrStUvWxYz==", "aB3dEfGhIjKl"),
    ("https://y/?next=https%3A%2F%2Fx%2Fapi%3Fcode%3DaB3dEfGhIjKlMnOpQrStUvWxYz", "aB3dEfGhIjKl"),
    ("DB_PASS=hunter22 psql", "hunter22"),
    ("mysql?user=a&pass=hunter22", "hunter22"),
    ("--secret-key hunter22", "hunter22"),
    ("--storage-key 'hunter22'", "hunter22"),
    ("[('Host', 'a'), ('X-Api-Key', 'hunter22')]", "hunter22"),
    ('[{"name": "DB_PASSWORD", "value": "correct horse"}]', "horse"),
    ('{\n  "name": "DB_PASSWORD",\n  "slotSetting": false,\n  "value": "hunter2"\n}', "hunter2"),
    ("X-Api-Key: 8d3f7a9c", "8d3f7a9c"),
    ("x-functions-key: aB3dEfGhIjKl", "aB3dEfGhIjKl"),
    ("password: hunter2", "hunter2"),
    ("github_token: 8d3f7a9c8d3f7a9c", "8d3f7a9c"),
    ("Authorization: SharedKey account:Zm9vYmFy=", "Zm9vYmFy"),
    ("authorization=0123456789abcdef0123", "0123456789abcdef0123"),
    ("header Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("s3://lake/secret=1/part?sig=abcdef", "abcdef"),
    ("s3://lake/password=correct-horse-battery/x", "correct-horse"),
    ("redis://password=hunter2", "hunter2"),
    ("has_password=false password=hunter2", "hunter2"),
    ("password=1234", "1234"),
    ("password=nonesuch", "nonesuch"),
    ("https://me:p4ss@github.com/x", "p4ss"),
    # In quotes and braces: all of it.
    ("host=db user=me password='hun ter2' dbname=x", "ter2"),
    ('Server=x;Password="a;b c";Timeout=3', "b c"),
    ("Driver=x;PWD={a;b}c;Timeout=3", "b}c"),
    ("{'password': b'hunter2'}", "hunter2"),
    ("password=b'hunter2'", "hunter2"),
    ('password="a\\"bcdef"', "bcdef"),
    # JSON in JSON, in HTML, and as .NET writes it.
    (json.dumps(json.dumps({"password": "hunter2"})), "hunter2"),
    (json.dumps(json.dumps(json.dumps({"AccountKey": "Zm9v"}))), "Zm9v"),
    ("{&quot;password&quot;:&quot;hunter2&quot;}", "hunter2"),
    ("https://a/c?sv=1\\u0026sig=abcdef", "abcdef"),
    (json.dumps("a line\npwd=hunter2"), "hunter2"),
    (json.dumps({"key": PEM}), "MIIEow"),
    ('{"password": 123456}', "123456"),
    ('{"password":["hunter2"]}', "hunter2"),
    ("password    = hunter2", "hunter2"),
    ("password => hunter2", "hunter2"),
    ("<password>hunter2</password>", "hunter2"),
    ("Command '['psql', '--password', 'hunter2']' returned 1", "hunter2"),
    ("az login --client-secret hunter2", "hunter2"),
    ("password1=hunter2", "hunter2"),
    ("password=[MASK]hunter2", "hunter2"),
    ("storage_key=Zm9v", "Zm9v"),
    ("SharedKey: Zm9vYmFy1", "Zm9vYmFy1"),
    ("https://x/?u=https%253A%252F%252Fy%253Fsv%253D1%2526sig%253Dabcdef", "abcdef"),
    ("the signature is sig=" + "aB3%2F" * 8, "aB3"),
    ("https://x.cloudfront.net/a?Expires=1&Signature=vjbyPxybdZaNmGaByT272", "vjbyPx"),
    ("postgresql:\\/\\/user:p4ss@db\\/x", "p4ss"),
    ("url=postgresql%3A%2F%2Fuser%3Ap4ss%40db%2Fx", "p4ss"),
    ("postgresql://user:p4/s#s@db/x", "s#s"),
    ("mongodb://user:p@ss@db/x", "ss@"),
    ("-----begin private key-----\nMIIEow\n-----end private key-----", "MIIEow"),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nMIIEow\n-----END PGP PRIVATE KEY BLOCK-----", "MIIEow"),
    ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nMIIEow\n---- END SSH2 ENCRYPTED PRIVATE KEY ----", "MIIEow"),
    ('Authorization: Digest username="me", response="6629fae49393"', "6629fae49393"),
    ("Authorization: AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=fe5f80", "fe5f80"),
    ("authorization: Api-Key 0123456789abcdef", "0123456789abcdef"),
    ("Set-Cookie: ARRAffinity=8d3f7a9c; path=/", "8d3f7a9c"),
    ("eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aXY.Y2lwaGVydGV4dA.dGFn", "Y2lwaGVydGV4dA"),
    ("glpat-abcdefghij1234567890", "abcdefghij"),
    ("AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe", "AIzaSy"),
    ("abc8Q~" + "aB3." * 8, "aB3."),
    # Encoded, wrapped, in lists and elements.
    ("%7B%22password%22%3A%22hunter22%22%7D", "hunter22"),
    ("password%3A%20hunter22", "hunter22"),
    ("Settings(api_key=SecretStr('hunter22'))", "hunter22"),
    ("[(b'x-api-key', b'hunter22')]", "hunter22"),
    ('[["x-api-key", "hunter22"]]', "hunter22"),
    ('[["accept", "*/*"], ["x-api-key", "hunter22"]]', "hunter22"),
    ('{\n  "password":\n    "hunter22"\n}', "hunter22"),
    ("password: |\n  hunter22\n", "hunter22"),
    ('<add key="Password" value="hunter22"/>', "hunter22"),
    ('form-data; name="password"\r\n\r\nhunter22\r\n--x', "hunter22"),
    ("-----BEGIN+RSA+PRIVATE+KEY-----%0D%0AMIIEow%0D%0A-----END+RSA+PRIVATE+KEY-----", "MIIEow"),
    (PEM.replace("\n", "\r\n"), "MIIEow"),
    (repr(PEM.replace("\n", "\r\n")), "MIIEow"),
    # Users and passwords.
    ("no answer from user:Hunter22xyz@db.example.com", "Hunter22xyz"),
    ("https://Hunter22xyzHunter22@host.example/x", "Hunter22xyz"),
    ("curl -u admin:hunter22 https://host", "hunter22"),
    ("curl --user=admin:hunter22 https://host", "hunter22"),
    ("get(url, auth=('user', 'hunter22'))", "hunter22"),
    ("HTTPBasicAuth('user', 'hunter22')", "hunter22"),
    ("SharedKey devstoreaccount1:" + "Zm9vYmFy" * 6, "Zm9vYmFy"),
    ("BlobServiceClient(url, credential='" + "Zm9vYmFy1" * 6 + "==')", "Zm9vYmFy"),
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
    "expected one of 'password', 'username1'",
    "['token', 'count2']",
    "in ('secret', 'column2', 'column3')",
    "bypass=abc123def, compass=north12345, pass=2",
    '[{"name": "MAX_TOKENS", "value": "5"}]',
    "-----BEGIN CERTIFICATE-----\nMIIB",
    "12:30:05",
    "eyJust a word. Another one. And one more",
    "sigma=0.5",
    "the sig=nature",
    "s3://lake/secret=1/part.parquet",
    "s3://lake/day=3/api_token=abc123/part.parquet",
    "/lake/secret=red",
    "github://org:repo@main/x",
    "oci://registry:tag@sha256:0123456789abcdef",
    "has_password=false",
    "password=None, secret=null",
    "password=${DB_PASSWORD}",
    "token=123456789",
    "token = 'EUR'",
    '{"token": "[MASK]", "pad_token": "<pad>"}',
    "authorization: pending by Ann",
    "authorization: pending",
    '{"authorization": "required"}',
    "wrong password: try again",
    "unexpected token: while3",
    "basic authentication is off",
    "https://x/?code=EPSG:4326&code=NL",
    "primary_key=4711, tokenizer=gpt2, secret_santa=ann1234",
    "sig=0.3",
    "phi=30&sig=1.5",
    '{"sig": "0.05"}',
    "signature_date=2026-01-02, signature: wet",
    "/data/eyJakobs_2021.reprojected_cog.tif",
    "pwd=/home/me/project",
    "password=$DB_PASSWORD",
    "password=@Microsoft.KeyVault(SecretUri=https://v/x)",
    "file://C:\\a:b@c",
    "--token requires a value",
    "basic \u212a\u212a\u212a\u212a\u212a\u212a",
    "basic \u017f\u017f\u017f\u017f\u017f\u017f\u017f",
    "if secret>limit",
    "mail to john.smith2@example.com, cc:bob2020@example.com, mailto:AnnSmith2@example.com",
    "registry.example/app:v1.2.3@sha256:ab12",
    "at 2026-01-02T10:11:12@host.example",
    "https://my-organisation-2@dev.azure.com/x",
    "abfss://container-2026-RasterData@account.dfs.core.windows.net/x",
    "git log -u origin/main, sudo -u user:group",
    "auth=('basic', 'digest')",
    '["password", "sha256sum"]',
    '[["key", "a1b2c3"]]',
    '<option key="Password" value="">',
    "credential='managed-identity-of-the-app'",
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
        ({"PGPASSWORD": "x"}, "PGPASSWORD"),
        ({"DB_PASSWORD": "x"}, "DB_PASSWORD"),
        ({"AWS_SESSION_TOKEN": "FwoGZXIv"}, "AWS_SESSION_TOKEN"),
        ({"github_token": "abc123"}, "github_token"),
        ({"githubToken": "abc123"}, "githubToken"),
        ({"AZURE_STORAGE_ACCOUNT_KEY": "x"}, "AZURE_STORAGE_ACCOUNT_KEY"),
        ({"x-functions-key": "x"}, "x-functions-key"),
        ({"x-api-key": "x"}, "x-api-key"),
        ({"secret_key": "x"}, "secret_key"),
        ({"aws_access_key": "x"}, "aws_access_key"),
        ({"password": ["hunter2"]}, "password[0]"),
        ({"token": {"type": "raw", "value": "abc123"}}, "token.value"),
        ({"headers": [{"name": "Authorization", "value": "Basic dXNlcjpwYXNz"}]}, "headers[0].value"),
        ([{"name": "DB_PASSWORD", "value": "x"}], "[0].value"),
        ({"Name": "DB_PASSWORD", "Value": "x"}, "Value"),
        ({"password1": "x"}, "password1"),
        ({"x-amz-signature": "fe5f80"}, "x-amz-signature"),
        ({"sig": "aB3%2F" * 8}, "sig"),
        ({"authorization": "0123456789abcdef"}, "authorization"),
        ({"a" * 500 + "_password": "x"}, "a" * 500 + "_password"),
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
        {
            "max_tokens": "many",
            "tokenizer": "gpt2-large",
            "secret_santa": "Ann Smith",
            "key": "abc123def",
            "keys": ["a1"],
        },
        {"primary_key": "customer_id", "token_count": "1234567", "access_keys": 2, "password_policy": "strict"},
        {"token": "[MASK]", "pad_token": "EUR", "eos_token": 50256, "mask_token": "50256000"},
        {"credentials": "managed-identity", "authorization": "pending by Ann"},
        {"credentials": {"type": "managed-identity", "client_id": "6f9619ff-8b86-d011-b42d-00cf4fc964ff"}},
        {"has_password": "false", "password": "${DB_PASSWORD}", "secret": {"a": None, "b": [False, 1]}},
        {"name": "colour", "value": "red12345"},
        {"pairs": [["token", "none"], ["password", "field"], ["x", "a1b2c3d4"], ["secret", 12345678, 1]]},
        {"sig": 0.3, "signature_date": "2026-01-02", "signature": "Ann Smith", "pwd": "/home/me"},
        {"sig": "0.3", "api_key": "$API_KEY"},
        json.loads("[" * 500 + "]" * 500),
    ],
)
def test_values_that_open_nothing_pass(value):
    assert find_credential(value) is None


def test_each_value_is_looked_at_once_however_many_names_are_above_it():
    """Each of ninety names looked at all leaves, through as many generators: minutes for a body of 1 MB."""
    value = [0] * 300_000
    for _ in range(90):
        value = {"secret": value}
    assert find_credential(value) is None


def test_long_name_above_many_values_costs_nothing_and_its_path_is_cut():
    """The path was written anew for each value."""
    name = "n" * 500_000
    assert find_credential({name: [0] * 300_000}) is None
    found = find_credential({name: ["", "password=hunter2"]})
    assert found is not None
    assert found.path == f"...{'n' * 997}[1]"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"passwords": ["hunter22"]}, "passwords[0]"),
        ({"secrets": {"db": "hunter22"}}, "secrets.db"),
        ({"ApiKeys": ("a", "8d3f7a9c")}, "ApiKeys[1]"),
        ({"secrets": ["db-login", "storage-login"]}, None),
        ({"cracked_passwords": 5000, "secrets": True}, None),
        ({"tokens": ["elephant", "abc123def"]}, None),
    ],
)
def test_several_credentials_below_one_name_are_found_and_their_names_are_not(value, path):
    found = find_credential(value)
    assert (found and found.path) == path


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"secret": {"max_token": "12345678"}}, "secret.max_token"),
        ({"token": {"password": "x"}}, "token.password"),
        ({"password": {"a": [None, {"b": "x"}]}}, "password.a[1].b"),
        ({"headers": [["Accept", "a/b"], ["X-Api-Key", "a1b2c3d4"]]}, "headers[1][1]"),
        ({"headers": [("Authorization", "Bearer a1b2c3d4e5")]}, "headers[0][1]"),
    ],
)
def test_strictest_name_above_decides(value, path):
    found = find_credential(value)
    assert found is not None
    assert found.path == path


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
        "/secret=",
        "/secret=1",
        "/token=1/a",
        "/a.",
        "password:",
        "password: a",
        "password:1",
        "token: ",
        "token=1",
        "token=[",
        "password=${",
        "basic ",
        "basic+",
        "&code=",
        "&code=a",
        "authorization:a",
        "://github:",
        "'",
        " ",
        "--",
        "--a",
        ":pwd",
        'password="',
        'password=\\"',
        "password={",
        "postgres://a:#",
        "%3a%2f%2fa%3a",
        "token>",
        "cookie: ",
        "authorization: digest ",
        "private-lines: ",
        ":A1a",
        "-u a:",
        "password=a(",
        "password%3a",
    ],
)
def test_time_grows_with_the_length_alone(piece):
    """Sixteen times the text takes sixteen times as long. Where a pattern looked back over what it read, 256 times."""

    def seconds(length):
        text = "=@:eyJ" + piece * (length // len(piece))
        began = time.thread_time()
        assert len(redact(text)) <= len(text) + text.count(piece)
        find_credential(text)
        return time.thread_time() - began

    seconds(100)  # compiles the patterns
    few = min(seconds(5_000) for _ in range(3))
    assert seconds(80_000) < 64 * few
