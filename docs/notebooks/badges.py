"""Adds links to Colab: `python docs/notebooks/badges.py OWNER/NAME` changes the notebooks and their page in place.

The repository's address is known only where the docs are published, so no link is committed.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent


def badge(repository: str, notebook: str) -> str:
    """Badge that opens a notebook of a GitHub repository in Colab."""
    address = f"https://colab.research.google.com/github/{repository}/blob/main/docs/notebooks/{notebook}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def main(repository: str) -> None:
    """Adds a badge to every notebook and to the page that lists them."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"{repository!r} is not OWNER/NAME of a repository.")
    page = HERE / "index.md"
    text = page.read_text(encoding="utf-8")
    for path in sorted(HERE.glob("*.ipynb")):
        link = badge(repository, path.name)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        first = {"cell_type": "markdown", "id": "badge", "metadata": {}, "source": link}
        notebook["cells"] = [first, *(cell for cell in notebook["cells"] if cell["id"] != "badge")]
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        text = text.replace(f"`{path.name}` |", f"`{path.name}` {link} |")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ("",))
