"""One file per stage: its settings, its one new idea, its loop. No stage imports another; they pass files."""
