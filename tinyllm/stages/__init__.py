"""One file per stage: its settings, its one new idea, its loop. Stages share files; none imports another."""
