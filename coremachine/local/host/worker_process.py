"""How a worker's process begins: `python -m coremachine.local.host.worker_process FD [MODULE ...]`.

Meanwhile nothing is collected: what imports make stays, and to look at all of it several times took a tenth of a
worker's start.
"""

import gc
from typing import NoReturn


def main() -> NoReturn:
    gc.disable()
    from coremachine.local.host.worker import run  # noqa: PLC0415 - what takes long is imported after that

    run()


if __name__ == "__main__":
    main()
