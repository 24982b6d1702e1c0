"""Every name, word list and sentence template of the world, read from wordings.json.

The words are data, so they live in a data file and the code stays short. Random draws pick from these
lists by index, so reordering a list changes the texts of every seed.

The templates of most questions have the form {"trained": [...], "held_out": [...]}. Training never uses
held-out templates, so exams can show whether a model understands a question in other wordings too.
"""

import json
from pathlib import Path

WORDINGS = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
