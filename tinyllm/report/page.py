"""The report page: the ten panels in page.html. What a run lacks is said in its place."""

from html import escape
from pathlib import Path
from string import Template

from tinyllm.checkpoint.files import replacing
from tinyllm.report.panels import PANELS
from tinyllm.report.record import Missing, Record
from tinyllm.report.svg import tag

TEMPLATE = Path(__file__).with_name("page.html")


def write(name, against=""):
    """Make runs/<name>/report.html, with the run `against` laid over it -> its path.

    Raises TinyllmError if a run has no stage at all.
    """
    run = Record(name, page=Path("runs") / name)
    other = Record(against, run.folder) if against else None
    sections = [section(number, panel, run, other) for number, panel in enumerate(PANELS, 1)]
    title = f"{name} and {against}" if against else name
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        run=escape(title), size=run.size, seed=run.seed, sections="".join(sections)
    )
    with replacing(run.folder / "report.html") as beside:
        beside.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")
    return run.folder / "report.html"


def section(number, panel, run, other):
    title, _, words = panel.__doc__.partition("\n")
    parts = [tag("h2", f"{number}. {title}", more=f'id="panel-{number}"'), tag("p", words, "words")]
    try:
        for part in panel(run, other):
            parts.append(part)
    except Missing as missing:
        parts.append(tag("p", escape(str(missing)), "missing"))
    return tag("section", "".join(parts))
