"""The report page of a run: one HTML file that needs no network and no script.

    record.py    what is on disk: settings, exams, log lines, samples, weights
    svg.py       lines, bars, dots and cells, drawn as text
    journey.py   one conversation under every objective: the gradients at the logits
    replies.py   what the finished stages say, and how sure they are of it
    panels.py    the ten panels; page.py puts them into page.html
    bands.json   where the curves of recorded runs lie (make band)

Nothing imports this package but the commands, and it changes nothing in a run except report.html.
"""
