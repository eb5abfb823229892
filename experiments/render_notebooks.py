"""Run the notebooks and write what they show as Markdown with figures, docs/notebooks."""

import base64
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cat_jax.errors import InputError
from experiments.command_line import exit_status, parse_arguments

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PARAMETERS = "parameters"
"""Tag of the cell whose values a caller may replace, as papermill has it."""


@dataclass(frozen=True)
class Args:
    """What to render.

    Attributes:
        names: Notebooks by name; all by default.
        model: Folder that takes the place of the pretrained model that they name.
        out: Folder of the pages.
        seconds: Longest time of a cell.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    model: str | None = None
    out: Path = ROOT / "docs/notebooks"
    seconds: int = 1800


def main() -> None:
    """Run and render.

    Raises:
        InputError: There is no such notebook, a package is missing, or a cell fails.
    """
    args = parse_arguments(Args, prog="python -m experiments.render_notebooks", description=__doc__)
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    for name in args.names or known:
        if name not in known:
            raise InputError(f"there is no notebook {name!r}; there are {', '.join(known)}")
        given: dict[str, Any] = {}
        if args.model is not None:
            given |= {"MODEL": args.model, "TOKENIZER": args.model}
        notebook = execute(name, given, seconds=args.seconds)
        write_page(args.out, name, notebook)
        print(args.out / f"{name}.md", flush=True)


def read_notebook(name: str) -> Any:
    """Return a notebook.

    Raises:
        InputError: The package nbformat is missing.
    """
    try:
        import nbformat  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"notebooks need nbformat and nbclient ({error}); pip install 'cat-jax[notebook]'"
        ) from error
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def execute(name: str, values: Mapping[str, Any], *, seconds: int = 600) -> Any:
    """Return a notebook with its outputs; it runs in a folder of its own, which is removed.

    Its cells are as they were, those with other values too.

    Args:
        name: Its name.
        values: What parameters that it has are to be.
        seconds: Longest time of a cell.

    Raises:
        InputError: A cell fails; the message ends with its error.
    """
    notebook = read_notebook(name)
    from nbclient import NotebookClient  # pyright: ignore[reportMissingImports]
    from nbclient.exceptions import CellExecutionError  # pyright: ignore[reportMissingImports]

    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        if PARAMETERS in cell.metadata.get("tags", ()):
            cell.source = with_values(cell.source, values)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=seconds, kernel_name="python3", resources=resources
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise InputError(f"notebook {name!r} fails: {error.ename}: {error.evalue}") from error
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    return notebook


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """Return the source of a cell of assignments with other values."""
    for name, value in values.items():
        line = f"{name} = {value!r}"
        source = re.sub(rf"^{name} = .*$", lambda _, line=line: line, source, flags=re.MULTILINE)
    return source


def write_page(folder: Path, name: str, notebook: Any) -> None:
    """Write NAME.md and its figures NAME-1.png, ...; figures of before are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    figures: list[bytes] = []
    parts = [_cell(cell, name, figures) for cell in notebook.cells]
    about = f"<!-- python -m experiments.render_notebooks {name} -->\n\n"
    source = f"[The notebook](../../notebooks/{name}.ipynb)\n"
    (folder / f"{name}.md").write_text(about + "\n\n".join([*parts, source]), "utf-8")
    for number, figure in enumerate(figures, 1):
        (folder / f"{name}-{number}.png").write_bytes(figure)


def _cell(cell: Any, name: str, figures: list[bytes]) -> str:
    if cell.cell_type == "markdown":
        return page_links(cell.source)
    shown = [_output(output, name, figures) for output in joined(cell.outputs)]
    return "\n\n".join([f"```python\n{cell.source}\n```", *filter(None, shown)])


def page_links(text: str) -> str:
    """Return a text of notebooks/ with its links as they are from docs/notebooks/."""
    return re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text.replace("](../docs/", "](../"))


def joined(outputs: list[Any]) -> list[Any]:
    """Return outputs with adjacent printed ones as one; bars and warnings are left out."""
    found: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _output(output: Any, name: str, figures: list[bytes]) -> str:
    if output.output_type == "stream":
        return _text(output.text)
    data = output.get("data", {})
    if "image/png" in data:
        figures.append(base64.b64decode(data["image/png"]))
        return f"![Figure {len(figures)}]({name}-{len(figures)}.png)"
    if "text/html" in data:  # as GitHub shows no styles, what a notebook shows is only named
        return "*(a notebook shows this as HTML)*"
    return _text(data.get("text/plain", ""))


def _text(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


if __name__ == "__main__":
    sys.exit(exit_status(main))
