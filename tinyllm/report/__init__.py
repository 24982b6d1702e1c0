"""The report page of a run: one HTML file that needs no network and no script.

    record.py    the files of a run: settings, exams, log lines, samples, weights
    svg.py       lines, dots and cells as inline SVG
    journey.py   one conversation under every objective: the gradients at the logits
    panels.py    the ten panels; page.py puts them into page.html
    bands.json   the range of the curves of three recorded runs

Only the commands import this package. The only file that it writes in the folder of a run is report.html.
"""
