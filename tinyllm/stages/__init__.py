"""One file per stage: its settings, its one new idea, its loop. Stages meet on disk, never in code."""

FOLDERS = ("0-random", "1-masked", "1-pretrain", "2-instruct", "3-prefer", "4-reason", "4-control")
