"""`python -m coremachine.cli`."""

import sys

from coremachine.cli.main import main

sys.exit(main())
