"""What is printed becomes lines, whatever pieces it comes in and however long it is."""

import pytest

from core.authors.printed_lines import PrintedBytes, PrintedLines
from core.safety.safe_text import MOST_TEXT_BYTES


@pytest.mark.parametrize(
    ("pieces", "lines", "rest"),
    [
        (["one\ntwo\nth", "ree"], ["one", "two"], "three"),
        (["a\r\n", "b\r", "\n"], ["a", "b"], ""),
        (["\r10%", "\r50%", "\r100%", "\n"], ["100%"], ""),
        (["10%\r", "50%\r", "done\n"], ["done"], ""),
        (["10%\r50%\rdone"], [], "done"),
        (["", "\n", ""], [""], ""),
    ],
)
def test_lines_are_as_a_terminal_shows_them(pieces, lines, rest):
    printed = PrintedLines()
    assert [line for piece in pieces for line in printed.add(piece)] == lines
    assert printed.rest() == rest
    assert printed.rest() == ""


def test_long_line_is_cut_and_says_so_however_it_comes():
    whole, pieces = PrintedLines(), PrintedLines()
    (line,) = whole.add("x" * 1_000_000 + "\n")
    for _ in range(1000):
        assert pieces.add("x" * 1000) == []
    assert pieces.rest() == line
    assert line.endswith("x [cut here: 1,000,000 characters in all]")
    assert len(line) <= MOST_TEXT_BYTES


def test_memory_of_a_line_without_an_end_is_bounded():
    printed = PrintedLines()
    for _ in range(200):
        printed.add("x" * 10_000)
    assert sum(map(len, printed._pieces)) < 2 * MOST_TEXT_BYTES


def test_credential_at_the_cut_is_not_shown_by_half():
    printed = PrintedLines()
    before, secret = "x" * (MOST_TEXT_BYTES - 120), "password=abcdefghijklmnopqrstuvwxyz0123456789"
    (line,) = printed.add(f"{before} {secret}{'y' * 100_000}\n")
    assert "password=" in line
    assert "abcd" not in line


def test_mark_at_the_end_of_a_line_is_kept_however_long_the_line_is():
    printed = PrintedBytes("<end>")
    (line,) = printed.add(b"x" * 300_000 + b"<e") + printed.add(b"nd>\n")
    assert line.endswith("in all]<end>")
    assert printed.add(b"x<end>\n") == ["x<end>"]


def test_character_may_come_in_two_pieces():
    printed = PrintedBytes()
    assert printed.add(b"caf\xc3") == []
    assert printed.add(b"\xa9\n") == ["caf\u00e9"]
    printed.add(b"\xe2\x82")
    assert printed.rest() == "\ufffd"
