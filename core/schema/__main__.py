"""`python -m core.schema` prints the whole schema as SQL."""

import sys

from core.schema.sql_generator import render_schema

sys.stdout.write(render_schema(*sys.argv[1:2]))
