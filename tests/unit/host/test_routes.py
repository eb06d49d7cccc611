"""Route templates."""

import pytest

from coremachine.local.host.errors import RouteTemplateError
from coremachine.local.host.routes import Route, RouteTable, RouteTemplate


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("api/jobs", "/api/jobs", {}),
        ("api/jobs", "/API/Jobs/", {}),
        ("api/jobs", "/api/jobs/7", None),
        ("jobs/{id}", "/jobs/a%2Fb", {"id": "a/b"}),
        ("jobs/{id}", "/jobs", None),
        ("jobs/{id:int}", "/jobs/-7", {"id": "-7"}),
        ("jobs/{id:int}", "/jobs/2147483648", None),
        ("jobs/{id:long}", "/jobs/2147483648", {"id": "2147483648"}),
        (
            "jobs/{id:guid}",
            "/jobs/0a4b1e2e-7b0c-4c4b-9c57-0d0c6b0f6a11",
            {"id": "0a4b1e2e-7b0c-4c4b-9c57-0d0c6b0f6a11"},
        ),
        ("jobs/{id:guid}", "/jobs/7", None),
        ("x/{v:bool}", "/x/TRUE", {"v": "TRUE"}),
        ("x/{v:bool}", "/x/1", None),
        ("x/{v:decimal}", "/x/1.5", {"v": "1.5"}),
        ("x/{v:double}", "/x/a", None),
        ("x/{v:datetime}", "/x/2026-01-01", {"v": "2026-01-01"}),
        ("x/{v:alpha}", "/x/ab1", None),
        ("x/{v:length(2)}", "/x/abc", None),
        ("x/{v:length(2,3)}", "/x/abc", {"v": "abc"}),
        ("x/{v:minlength(3)}", "/x/ab", None),
        ("x/{v:maxlength(3)}", "/x/ab", {"v": "ab"}),
        ("x/{v:min(3)}", "/x/2", None),
        ("x/{v:max(3)}", "/x/2", {"v": "2"}),
        ("x/{v:int:range(1,5)}", "/x/5", {"v": "5"}),
        ("x/{v:int:range(1,5)}", "/x/6", None),
        (r"x/{v:regex(^\d{{2}}/?$)}", "/x/12", {"v": "12"}),
        (r"x/{v:regex(^\d{{2}}/?$)}", "/x/123", None),
        ("jobs/{id?}", "/jobs", {}),
        ("jobs/{kind=all}", "/jobs", {"kind": "all"}),
        ("jobs/{kind=all}", "/jobs/new", {"kind": "new"}),
        ("files/{*path}", "/files/a/b%20c", {"path": "a/b c"}),
        ("files/{*path}", "/files", {}),
        ("/{*route}", "/", {}),
        ("/{*route}", "/any/thing", {"route": "any/thing"}),
    ],
)
def test_template_matches_the_paths_it_should(template, path, values):
    assert RouteTemplate.parse(template).match(path) == values


@pytest.mark.parametrize(
    "template",
    ["a//b", "{*rest}/x", "{id", "id}", "a-{id}", "{id:nosuch}", "{id:range(a,b)}", "{a}/{A}", "{v:regex([)}"],
)
def test_malformed_template_is_refused_with_its_text(template):
    with pytest.raises(RouteTemplateError) as caught:
        RouteTemplate.parse(template)
    assert repr(template) in str(caught.value)


def table() -> RouteTable[str]:
    return RouteTable(
        [
            Route(RouteTemplate.parse("jobs/{id:int}"), frozenset({"GET"}), "by number"),
            Route(RouteTemplate.parse("jobs/{name}"), frozenset({"GET"}), "by name"),
            Route(RouteTemplate.parse("jobs/{id:int}"), frozenset(), "any method"),
        ]
    )


def test_first_route_in_order_of_registration_wins():
    assert table().find("GET", "/jobs/7") == ("by number", {"id": "7"})
    assert table().find("GET", "/jobs/seven") == ("by name", {"name": "seven"})


def test_wrong_method_is_a_missed_route():
    assert table().find("DELETE", "/jobs/7") == ("any method", {"id": "7"})
    assert table().find("DELETE", "/jobs/seven") is None
