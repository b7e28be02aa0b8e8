"""How Sphinx builds these pages: `make docs`, offline, with warnings as errors."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import ClassVar

from click.testing import CliRunner
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from phbatch.shell.commands import cli

project = "phbatch"
project_copyright = "2026, the phbatch developers, BSD 3-Clause licence"
version = release = version_of("phbatch")

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the sections of numpydoc say the types in words
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "phbatch"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
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
        told = CliRunner(env={"COLUMNS": "100"}).invoke(cli, [*words, "--help"], prog_name="phbatch")
        if told.exit_code:
            raise self.error(f"phbatch {' '.join(words)} --help ends with {told.exit_code}: {told.output}")
        block = nodes.literal_block(told.output, told.output)
        block["language"] = "text"
        return [block]


def setup(app: Sphinx) -> None:
    """Add the directive ``command-help``."""
    app.add_directive("command-help", CommandHelp)
