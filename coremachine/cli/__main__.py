"""`python -m coremachine.cli`."""

import sys

from coremachine.__main__ import main

sys.exit(main())
