"""Arguments have one form in every help text, usage line and page."""

from coremachine.reference.commands import find_commands


def test_arguments_are_in_capitals_everywhere() -> None:
    found = {
        f"{name} {p.name}": p.metavar
        for name, c in find_commands()
        for p in c.params
        if p.param_type_name == "argument"
    }
    assert [name for name, metavar in found.items() if metavar is None or not metavar.replace("_", "").isupper()] == []
