"""One file per stage: its settings, its one new idea, its loop. Stages meet on disk, never in code."""
