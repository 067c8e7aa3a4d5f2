"""Hooks of the documentation site: pages from outside of docs/, generated pages, and links that leave docs/.

MkDocs serves one folder, while the documents of a repository link to its source files too. So the first page is made of
README.md, and others of CHANGELOG.md or the examples, links of these to documents become links to pages, and links of
documents to other files become links to the repository. The reference of the command line is printed by a program that
needs Umbel, which is not installed where MkDocs is; so the Python of .venv runs it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # These packages stand in .ext/docs, where the hooks run.
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
FROM_OUTSIDE = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples/index.md",
    **{
        page.relative_to(PROJECT).as_posix(): f"examples/{page.parent.name}.md"
        for page in sorted((PROJECT / "examples").glob("*/README.md"))
    },
}
"""Files of the repository that are pages of the site, with the path of the page."""
GENERATED = {"cli.md": "tools.cli_reference"}
"""Generated pages, each with the module that prints it."""
STYLE = "tools/site.css"
_GENERATE_S_MAX = 60
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    from mkdocs.structure.files import File

    for name, page in FROM_OUTSIDE.items():
        text = (PROJECT / name).read_text()
        files.append(File.generated(config, page, content=links_of_site(text, name, str(config["repo_url"]))))
    files.append(File.generated(config, Path(STYLE).name, abs_src_path=str(PROJECT / STYLE)))
    for page, module in GENERATED.items():
        command = [str(PROJECT / ".venv" / "bin" / "python"), "-m", module]
        printed = subprocess.run(
            command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, timeout=_GENERATE_S_MAX, check=True
        )
        files.append(File.generated(config, page, content=printed.stdout))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links to files outside of docs/ absolute."""
    if page.file.src_uri in FROM_OUTSIDE.values():
        return markdown
    return links_of_site(markdown, f"docs/{page.file.src_uri}", str(config["repo_url"]))


def links_of_site(markdown: str, name: str, repository: str) -> str:
    """Return Markdown with its links as the site needs them.

    Args:
        markdown: the text of a file.
        name: the path of that file in the repository.
        repository: the URL of the repository.
    """
    return _LINK.sub(lambda found: f"]({_link_of_site(found[1], name, repository)})", markdown)


def _link_of_site(link: str, name: str, repository: str) -> str:
    """Return the link to a page or a file of docs/ as a relative one, to another file as an absolute one."""
    here = FROM_OUTSIDE.get(name, name.removeprefix("docs/"))
    for prefix in (f"{repository}/blob/main/", f"{repository}/raw/main/"):
        if link.startswith(prefix):
            path = link.removeprefix(prefix)
            break
    else:
        if "://" in link or link.startswith(("#", "mailto:")):
            return link
        path = os.path.normpath(Path(name).parent / link.partition("#")[0]) + "".join(link.partition("#")[1:])
    file, mark, anchor = path.partition("#")
    page = FROM_OUTSIDE.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
    if page is None:
        kind = "tree" if (PROJECT / file).is_dir() else "blob"
        return f"{repository}/{kind}/main/{path}"
    return os.path.relpath(page, Path(here).parent) + mark + anchor
