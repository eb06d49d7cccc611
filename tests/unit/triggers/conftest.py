"""What FastAPI derives from the API's endpoints is kept for all tests of a process."""

from copy import deepcopy
from typing import Any

import pytest

from triggers import openapi


@pytest.fixture(scope="session", autouse=True)
def one_document():
    """All apps share their endpoints, of which FastAPI makes the same document each time: that takes a second."""
    # With the endpoints, which are known by their identity.
    made: dict[Any, tuple[Any, dict[str, Any]]] = {}
    make = openapi.get_openapi

    def get_openapi(*, routes, **about):
        key = (tuple(map(id, routes)), *sorted(about.items()))
        if key not in made:
            made[key] = list(routes), make(routes=routes, **about)
        return deepcopy(made[key][1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openapi, "get_openapi", get_openapi)
        yield
