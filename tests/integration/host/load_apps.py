"""Loads each app of `load_cases` in Microsoft's runtime and prints, as JSON, which ones it refuses and why.

python load_apps.py FOLDER
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from coremachine.local.host.errors import AppLoadError
from coremachine.local.host.ms_runtime import MsRuntimeInvoker


async def verdict_on(folder: Path, name: str, source: str) -> str | None:
    """Each app has a module of its own name: the runtime imports it once."""
    script = f"case_{abs(hash(name))}.py"
    (folder / script).write_text(source)
    os.environ["PYTHON_SCRIPT_FILE_NAME"] = script
    try:
        await MsRuntimeInvoker.create(folder)
    except AppLoadError as error:
        return str(error)
    return None


async def run(folder: Path) -> dict[str, str | None]:
    from load_cases import LOADED, REFUSED

    return {name: await verdict_on(folder, name, source) for name, source in (LOADED | REFUSED).items()}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(asyncio.run(run(Path(sys.argv[1])))), file=sys.__stdout__)
    sys.__stdout__.flush()
    os._exit(0)
