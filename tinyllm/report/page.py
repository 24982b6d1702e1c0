"""The report page: page.html with its ten panels filled in. A panel whose data is missing says so."""

import re
from html import escape
from pathlib import Path
from string import Template

from tinyllm.checkpoint.files import write_text
from tinyllm.errors import TinyllmError
from tinyllm.report import panels
from tinyllm.report.record import Record
from tinyllm.report.svg import tag

TEMPLATE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
PANELS = re.findall(r"^\$(\w+)$", TEMPLATE, re.M)  # names of the panels, in order


def write(name, against=""):
    """Write runs/<name>/report.html, and return its path. The drawings also show the run `against`, if given.

    Raises TinyllmError if either run has no stage at all.
    """
    run, title = Record(name, against), f"{name} and {against}" if against else name
    parts = {"run": escape(title), "size": run.size, "seed": run.seed}
    parts |= {panel: contents(getattr(panels, panel), run) for panel in PANELS}
    write_text(run.folder / "report.html", Template(TEMPLATE).substitute(parts))
    return run.folder / "report.html"


def contents(panel, run):
    """The drawings of a panel, followed by a note if the run lacks something."""
    parts = []
    try:
        for part in panel(run):
            parts.append(part)
    except (TinyllmError, OSError) as missing:  # a stage is missing, or a file was moved
        parts.append(tag("p", escape(str(missing)), "missing"))
    return "".join(parts)
