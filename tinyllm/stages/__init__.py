"""One file per stage: its settings, its new idea and its training loop. Stages exchange data through files on
disk; none imports another."""
