"""One database for all stories of a module: each looks at its own jobs, and at the invariants of all."""

from collections.abc import Iterator

import pytest

from infrastructure.postgresql import create_pool
from tests.databases import Engine, clone_template


@pytest.fixture(scope="module")
def engine(template_url: str) -> Iterator[Engine]:
    with clone_template(template_url) as url, create_pool(url, max_size=20) as pool:
        yield Engine(pool)
