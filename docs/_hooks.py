"""MkDocs hook: links from a page to files outside docs/, which work where the repository is browsed.

The site has only docs/: a picture is added to it, any other link becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\.?/[^)#\s]+)\)")
_WIDE = ("maths.md",)  # pages whose tables need the room of the contents on the right
_FOLDER = "pictures"  # of the site, for what comes from elsewhere


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Replace the links of one page."""
    if page.file.src_uri in _WIDE:
        page.meta["hide"] = ["toc"]
    here = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", here, link[3]))
        if target.startswith("docs/"):
            return link[0]
        if not link[1]:
            return link[2]
        uri = f"{_FOLDER}/{posixpath.basename(target)}"
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
        return f"![{link[2]}]({posixpath.relpath(uri, here or '.')})"

    return _LINK.sub(replace, markdown)
