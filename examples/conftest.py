"""Each example is a project of its own: its folder is on the path, as where pytest runs in it."""

import sys
from pathlib import Path

for folder in sorted(Path(__file__).parent.iterdir()):
    if folder.is_dir():
        sys.path.append(str(folder))
