"""`python -m coremachine.reference` writes the generated pages of `docs/reference` and prints those that changed."""

import sys

from coremachine.reference.pages import write_pages

sys.stdout.writelines(f"docs/reference/{name}\n" for name in write_pages())
