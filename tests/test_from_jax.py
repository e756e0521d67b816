"""docs/from-jax.md: the recipes of each library by themselves, where it is installed."""

import pytest

from test_docs import DOCS, packages_of, run_page

PAGE = DOCS / "from-jax.md"


@pytest.mark.parametrize("package", packages_of(PAGE))
def test_recipes(package):
    pytest.importorskip(package)
    run_page(PAGE, [package])
