"""How Sphinx builds these pages: `make docs`, offline, with warnings as errors."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import ClassVar

from click.testing import CliRunner
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.util.docutils import SphinxDirective

from phbatch.shell.commands import cli

project = "phbatch"
project_copyright = "2026, the phbatch developers, BSD 3-Clause licence"
version = release = version_of("phbatch")

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "name"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the sections of numpydoc say the types in words
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "phbatch"
html_static_path = ["_static"]
html_css_files = ["phbatch.css"]
html_sidebars = {"changelog": [], "contributing": []}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


class CommandHelp(SphinxDirective):
    """What ``phbatch COMMAND --help`` prints, so that no page can say anything else."""

    required_arguments: ClassVar = 1

    def run(self) -> list[nodes.Node]:
        """The help as a literal block."""
        words = [] if self.arguments[0] == "phbatch" else self.arguments
        told = CliRunner().invoke(cli, [*words, "--help"], prog_name="phbatch")
        if told.exit_code:
            raise self.error(f"phbatch {' '.join(words)} --help ends with {told.exit_code}: {told.output}")
        block = nodes.literal_block(told.output, told.output)
        block["language"] = "text"
        return [block]


def name_role(name, rawtext, text, lineno, inliner, options=None, content=()):  # type: ignore[no-untyped-def]
    """What stands in single backticks: a full name is a link; else code, since settings and functions share names."""
    if text.startswith("phbatch."):
        return PyXRefRole()("py:obj", rawtext, text, lineno, inliner, options or {}, list(content))
    return [nodes.literal(rawtext, text)], []


def setup(app: Sphinx) -> None:
    """Add the directive ``command-help``, and the role of single backticks."""
    app.add_role("name", name_role)
    app.add_directive("command-help", CommandHelp)
