"""Names of files, folders and settings in what notebooks show: never HTML, a link, a picture or a formula."""

import re
from html.parser import HTMLParser
from pathlib import Path

import kernelless
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import past_runs
import pytest
from amount import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.displaypub import CapturingDisplayPublisher
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from mask_lib.base import files
from mask_lib.plots import curve_plots, data_plots, style
from mask_lib.training import run_folder

NOTEBOOKS = sorted((files.PROJECT / "notebooks").glob("*.ipynb"))
HARMLESS = {"p", "br", "strong", "code", "pre", "ul", "li", "em", "hr", *(f"h{level}" for level in range(1, 7))}
EVIL = '<img src=x onerror="alert(1)">$x^2$'
PIECES = [
    "<svg onload=x>",
    "<!--",
    "&lt;",
    "&#60;",
    "`",
    "``",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\begin{x}",
    "\n",
    "\n\n",
    "    ",
]
PIECES += [
    "[a](http://x.y)",
    "![a](y)",
    "[x]: http://y",
    "<http://x.y>",
    "http",
    "://x.y",
    "www",
    ".x.y",
    "a@b.cd",
    "a",
]
PIECES += ["_", "*", "**", "- ", "# ", "|", "~~~", "```", "---", "=", "\r", "\t", "\u202e", "\udcff", ".", "é"]


class Live(HTMLParser):
    """Collects what a page holds beside text and harmless elements, and its text outside code, where MathJax looks."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.text, self.code = [], "", 0

    def handle_starttag(self, tag, attributes):
        self.code += tag == "code"
        if tag not in HARMLESS and ("class", "anchor-link") not in attributes:  # nbconvert's at headings
            self.found.append(tag)

    def handle_endtag(self, tag):
        self.code -= tag == "code"

    def handle_data(self, data):
        self.text += "" if self.code else data


def live(markdown: str) -> list[str]:
    """What could act or mislead in a page of this Markdown: elements and signs of formulas."""
    page = Live()
    page.feed(markdown2html_mistune(markdown))
    return page.found + re.findall(r"[$\\]", page.text)


@pytest.mark.parametrize("name", [EVIL, "`a`" + EVIL, "[a](http://x.y)", "![](x)", "<http://x.y>", "a$b$c", r"\(x\)"])
def test_a_name_stands_as_it_is_written(name: str):
    made = style.markdown(f"## Answer\n\n{name} and `{name}`\n\n- `{name}`\n").data
    assert not live(made)
    assert not re.search("<|www[.]|://", re.sub("`[^`]*`", "", made))  # what JupyterLab would make a link of, too


@settings(max_examples=amount(200, 3000), deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
def test_no_mixture_of_marks_becomes_markup(name: str):
    made = style.markdown(f"## A\n\n`{name}` and {name} end, **{name}**\n\n- `{name}`\n").data
    assert not live(made)
    made.encode()  # a broken encoding cannot be saved in a notebook


def test_our_own_markup_stays():
    text = "## Answer\n\n**0.763** of `outputs/a_b/oof.csv`, one_model at 0.5.\n\n- `x$y`\n"
    assert style.markdown(text).data == text


def test_notebooks_and_program_show_text_by_the_one_way_that_escapes():
    read = {path: nbformat.read(path, as_version=4).cells for path in NOTEBOOKS}
    code = {path: "\n".join(one.source for one in cells if one.cell_type == "code") for path, cells in read.items()}
    shows = re.compile(r"(?<!style\.m)(Markdown|HTML|SVG|Latex|Math|Javascript)\b|\.style\b|escape=")
    assert code and not [path.stem for path, text in code.items() if shows.search(text)]
    sources = {path: path.read_text(encoding="utf-8") for path in (files.PROJECT / "mask_lib").rglob("*.py")}
    sources.pop(files.PROJECT / "mask_lib" / "plots" / "style.py")
    maker = re.compile(r"\b(Markdown|HTML|Latex)\(|\.to_html|\.style\.(format|hide|map)")
    assert not [path.name for path, text in sources.items() if maker.search(text)]


@pytest.mark.usefixtures("closed_figures")
def test_charts_draw_a_dollar_as_it_stands(ax):
    table = pd.DataFrame({"path": ["a"], "problem": ["$x^2$ and $y"], "detail": ["c"]})
    data_plots.problems(table, ax)
    found = pd.DataFrame({"learning_rate": [1e-4, 1e-2, 1], "loss": [3.0, 2, 5], "smoothed": [3.0, 2, 5]})
    other = curve_plots.learning_rate_finder(found, 0.01)
    for one in (ax, other):
        one.figure.canvas.draw()
        texts = [text for text in one.figure.findobj(plt.Text) if text.get_text()]
        assert not any(text.get_parse_math() for text in texts)
        assert not any("mathdefault" in text.get_text() for text in texts)


def test_tables_escape_their_cells_names_and_columns():
    shown = pd.DataFrame({EVIL: [EVIL]}, index=[EVIL])._repr_html_()
    assert "<img" not in shown and "mathjax_ignore" in shown


@pytest.fixture
def compared(tmp_path: Path, shell, monkeypatch) -> tuple[str, Path]:
    """The Markdown and HTML that 08 shows of runs below a folder of an evil name, some damaged; that folder."""
    output = tmp_path / EVIL.replace("/", "")
    past_runs.prepare(output)
    for name, right in (("first", 0.9), ("second", 0.4)):
        past_runs.write_run(output, name, right)
    for name in (EVIL, "a b", "-p", "x" * 101):
        (output / "runs" / "first").rename(output / "runs" / name)
        past_runs.write_run(output, "first", 0.9)
    data = tmp_path / "data"
    for path in ("train/train.csv", "eval/info.csv"):
        (data / path).parent.joinpath("images").mkdir(parents=True)
        (data / path).write_text("id\n")
    monkeypatch.setattr(shell, "display_pub", CapturingDisplayPublisher())
    options = {"shown_disagreements": 0, "explained_mistakes": 0, "data_dir": str(data), "output_dir": str(output)}
    _, values = kernelless.executed(shell, "08_compare_runs", **options)
    shown = [one["data"] for one in shell.display_pub.outputs]
    texts = [data["text/markdown"] for data in shown if "text/markdown" in data]
    texts += [value._repr_html_() for value in values if isinstance(value, pd.DataFrame)]
    return "\n\n".join(texts), output


def test_a_report_of_evil_names_is_safe_and_names_what_it_leaves_out(compared, capsys):
    shown, output = compared
    assert "Answer" in shown and "<img" not in shown and "onerror" not in "".join(re.findall("<[^>]*>", shown))
    problems = pd.read_csv(output / "comparison" / "problems.csv")
    assert len(problems) == 4 and problems["problem"].str.contains("the name of this folder = ").all()
    assert run_folder.trained_runs(output) == ["first", "second"]
