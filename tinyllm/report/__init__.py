"""The report page of a run: one HTML file that needs no network and no script.

    record.py    the files of a run: settings, exams, log lines, samples, weights
    svg.py       lines, dots and cells as inline SVG
    journey.py   one conversation under every objective: the gradients at the logits
    panels.py    the ten panels; page.py puts them into page.html
    bands.json   for panel 4: the lowest and highest values of three recorded runs

Only the commands import this package. Writing the page changes no other file of the run.
"""
