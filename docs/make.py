"""Makes the tables of settings.md and errors.md from the code; what stands above their marker line is kept.

.venv/bin/python docs/make.py            writes both, and lists messages that do not say what to do
.venv/bin/python docs/make.py --check    exit status 1 if one is not as the code would make it
"""

import ast
import io
import json
import re
import sys
import tokenize
import typing
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path[:0] = [str(PROJECT), str(HERE)]

import messages  # noqa: E402

from mask_lib.base.config import Run  # noqa: E402
from mask_lib.headless import cells  # noqa: E402

MARK = "<!-- Made by docs/make.py from here on. -->\n\n"
TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
TRAINING = ("03_one_model", "04_three_model")  # notebooks that take the settings of a run


def table(*rows: list[str]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rest))


def code(text: str) -> str:
    """A text as a code span."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def shown(value: Any) -> str:
    """A default as a parameter file would hold it."""
    if value in ("", (), [], None):
        return "empty"
    return code(value if isinstance(value, str) else json.dumps(value))


def kind(annotation: Any, limits: typing.Sequence[Any] = ()) -> str:
    """A field's type and range in words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind(inner[0], [one for field in inner[1:] for one in field.metadata])
    if origin is typing.Literal:
        return ", ".join(map(code, inner))
    if origin is tuple:
        return f"list of: {kind(inner[0])}"
    held = [f"{word} {getattr(one, name):,}" for one in limits for name, word in LIMITS.items() if hasattr(one, name)]
    return ", ".join([TYPES.get(annotation, str(annotation)), *held])


def comments(source: str, above: bool = False) -> dict[str, str]:
    """The comment behind each assignment, by its name; above: and the lines of comment before it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found, lines = {one.start[0]: one.string.lstrip("# ") for one in tokens if one.type == tokenize.COMMENT}, {}
    source_lines = ["", *source.splitlines()]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            first = node.lineno
            while above and source_lines[first - 1].lstrip().startswith("#"):
                first -= 1
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            lines[name] = "; ".join(found[at] for at in (*range(first, node.lineno), node.end_lineno) if at in found)
    return lines


def users(name: str) -> str:
    """The files of notebooks/params that use a name, in whatever section."""
    paths = sorted(PROJECT.glob("notebooks/params/*.yml"))
    return ", ".join(path.stem for path in paths if re.search(rf"(?m)^ *{name}:", path.read_text(encoding="utf-8")))


def parameter_comments(stem: str) -> dict[str, str]:
    """The comments in a notebook's parameters cell."""
    found = cells.read(PROJECT / "notebooks" / f"{stem}.ipynb")
    return next(comments(one["source"]) for one in found if "parameters" in one["metadata"].get("tags", []))


def settings() -> str:
    """The tables of settings.md: the fields of `Run`, then what else each notebook declares."""
    source = (PROJECT / "mask_lib" / "base" / "config.py").read_text(encoding="utf-8")
    run = next(one for one in ast.parse(source).body if isinstance(one, ast.ClassDef) and one.name == Run.__name__)
    about = comments(ast.get_source_segment(source, run), above=True)
    declared = cells.declared_in(PROJECT / "notebooks")
    rows = [["setting", "type", "default", "what it is", "used in"]]
    for name, field in Run.model_fields.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        others = {stem[:2]: shown(declared[stem][name]) for stem in TRAINING if declared[stem][name] != default}
        shown_default = "; ".join([shown(default), *(f"{number}: {value}" for number, value in others.items())])
        rows.append([code(name), kind(field.annotation, field.metadata), shown_default, about[name], users(name)])
    parts = [f"## Of a run\n\n{table(*rows)}"]
    for stem, values in declared.items():
        spoken, rows = parameter_comments(stem), [["parameter", "default", "what it is", "used in"]]
        for name in (one for one in values if stem not in TRAINING or one not in Run.model_fields):
            rows.append([code(name), shown(values[name]), spoken[name], users(name)])
        parts.append(f"## Of {stem}{', beside those of a run' * (stem in TRAINING)}\n\n{table(*rows)}")
    return "\n".join(parts)


def errors(found: list[messages.Message]) -> str:
    """The tables of errors.md. SystemExit for advice on what is no longer raised."""
    known = yaml.safe_load((HERE / "advice.yml").read_text(encoding="utf-8"))
    if gone := [key for key in known if not any(fits(key, one.said) for one in found)]:
        sys.exit(f"docs/advice.yml: no message begins with {gone}: change these entries or remove them")
    sections: dict[tuple[str, str], list[list[str]]] = defaultdict(lambda: [["module", "message", "what to do"]])
    for one in found:
        advice = code(one.advice) if one.advice else next((known[key] for key in known if fits(key, one.said)), "")
        sections[one.wing, one.exception].append([one.module, code(one.said), advice])
        if not advice and not messages.REQUIRES.search(one.said):
            print(f"says nothing of what to do: {one.wing}.{one.module}: {one.said}", file=sys.stderr)
    return "\n".join(f"## {wing}: {name}\n\n{table(*rows)}" for (wing, name), rows in sorted(sections.items()))


def fits(key: str, said: str) -> bool:
    """Whether an entry of advice.yml is about a message."""
    return key[1:] in said if key[0] == "…" else said.startswith(key)


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    made = {"settings": settings(), "errors": errors(messages.Source(PROJECT / "mask_lib").messages())}
    paths = {HERE / f"{name}.md": text for name, text in made.items()}
    return {path: path.read_text(encoding="utf-8").partition(MARK)[0] + MARK + text for path, text in paths.items()}


if __name__ == "__main__":
    stale = {path: text for path, text in pages().items() if path.read_text(encoding="utf-8") != text}
    if "--check" not in sys.argv:
        for path, text in stale.items():
            path.write_text(text, encoding="utf-8")
    elif stale:
        sys.exit(f"not as the code would make it: {', '.join(path.name for path in stale)}; run docs/make.py")
