"""Configuration of the documentation site. Build it with `make docs`; open docs/_build/index.html."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402
from docutils import nodes  # noqa: E402
from docutils.utils.math.latex2mathml import parse_latex_math  # noqa: E402
from docutils.utils.math.mathml_elements import math as MathElement  # noqa: E402
from sphinx.ext.napoleon import Config, GoogleDocstring  # noqa: E402

from sslcli import __version__  # noqa: E402

project = "sslcli"
version = release = __version__
author = "The sslcli authors"
copyright = "The sslcli authors"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "reference/generated/evaluators.md"]  # the page of metrics includes it
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False

# The pages work from the disk and make no request to another host: fonts are the system's, formulas are MathML.
html_theme = "furo"
html_title = "sslcli"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse for files
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def mathml(node: nodes.Element, block: bool) -> str:
    root = MathElement(xmlns="http://www.w3.org/1998/Math/MathML", display="block" if block else "inline")
    parse_latex_math(root, node.astext())
    return root.toxml()


def visit_math(translator, node: nodes.math) -> None:
    translator.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def visit_math_block(translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula" tabindex="0">{mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def attributes(cls: type) -> list[str]:
    """The attributes of a class that have a comment on their line, as a section of its docstring."""
    head = re.split(r"\n    (?:def|@)", inspect.getsource(cls))[0]
    found = re.findall(r"^    (\w+): [^#\n]*(?:\n {8}[^#\n]*)?# (.+)$", head, re.MULTILINE)
    return ["", "Attributes:", *(f"    {name}: {comment}" for name, comment in found)] if found else []


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with `code` and sections such as `Args:`; reST would read `*` and `_` as markup.

    Attributes are described by the comments on their lines."""
    if what == "class" and "Attributes:" not in lines:
        lines += attributes(obj)
    for i, line in enumerate(lines):
        parts = re.split(r"`+([^`]*)`+", line)
        parts[0::2] = [re.sub(r"([*|\\]|_\b)", r"\\\1", text) for text in parts[0::2]]
        lines[i] = "".join(f"``{part}``" if n % 2 and part.strip() else part for n, part in enumerate(parts))
    if what in ("class", "function", "method"):
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_ivar=True), app, what, name, obj, options).lines()


def focusable(app, pagename, templatename, context, doctree) -> None:
    """Regions that may scroll are reachable by keyboard."""
    if "body" in context:
        context["body"] = re.sub(r'<(?=pre>|div class="table-wrapper)(\w+)', r'<\1 tabindex="0"', context["body"])


def setup(app) -> None:
    app.connect("html-page-context", focusable)
    app.connect("autodoc-process-docstring", as_rst)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("builder-inited", lambda app: generate.write(Path(app.srcdir) / "reference" / "generated"))
