"""One file a stage: what it adds, its settings, its loop. Stages meet only on disk and never import one another."""

FOLDERS = ("0-random", "1-pretrain", "1-masked", "2-instruct", "3-prefer", "4-reason")
