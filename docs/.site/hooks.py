"""Hooks of the documents' site: its navigation, and the scripts that it has to bring along.

The navigation is read from the folders, so that a new page cannot be forgotten: a section per folder, the pages that
`ORDER` names first, then the others by name.
"""

import gzip
import os
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

VENDOR = Path(__file__).parent / "vendor"
MERMAID = "assets/vendor/mermaid.min.js"
SHIM = "assets/vendor/iframe-worker.js"
SECTIONS = {
    "Tutorial": "tutorial",
    "How-to guides": "howto",
    "Reference": "reference",
    "Explanation": "explanation",
    "Decisions": "adr",
}
ORDER = (
    "howto/write-a-job.md",
    "howto/declare-a-job.md",
    "howto/test-a-job.md",
    "howto/make-it-faster.md",
    "howto/submit-jobs.md",
    "howto/use-the-client.md",
    "howto/follow-jobs.md",
    "howto/act-on-many-jobs.md",
    "howto/give-roles.md",
    "howto/debug-a-failed-job.md",
    "reference/http.md",
    "reference/cli.md",
    "reference/submitting.md",
    "reference/settings.md",
    "reference/stage-keys.md",
    "reference/parameter-types.md",
    "reference/operations.md",
    "reference/states.md",
    "reference/events.md",
    "reference/log.md",
    "reference/problem-codes.md",
    "reference/sql-functions.md",
    "reference/tables.md",
    "explanation/architecture.md",
    "explanation/delivery.md",
    "explanation/locking.md",
    "explanation/fan-in.md",
    "adr/index.md",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    folder = Path(config.docs_dir)
    config.nav = [{"Home": "index.md"}]
    for title, name in SECTIONS.items():
        pages = sorted(path.relative_to(folder).as_posix() for path in (folder / name).glob("*.md"))
        if pages:
            config.nav.append({title: sorted(pages, key=_place)})
    config.nav += [path.name for path in sorted(folder.glob("*.md")) if path.name != "index.md"]
    return config


def _place(page: str) -> int:
    return ORDER.index(page) if page in ORDER else len(ORDER)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, MERMAID, content=gzip.decompress((VENDOR / "mermaid.min.js.gz").read_bytes())))
    files.append(File.generated(config, SHIM, content=(VENDOR / "iframe-worker.js").read_bytes()))
    return files


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """The script that draws diagrams is large: only pages with a diagram load it."""
    if 'class="mermaid"' not in output:
        return output
    source = os.path.relpath(MERMAID, Path(page.file.dest_uri).parent)
    return output.replace("</head>", f'<script src="{source}"></script></head>', 1)
