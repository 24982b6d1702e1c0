"""How big each SIZE is: one table for the model, the built-in data and the steps of every stage.

tiny (seconds) is for tests and learns nothing. nano (1 minute) is for trying things out. small (20 minutes)
is the default; the README's results for the built-in world are from it. base (hours) has a bigger model, more
data and more steps.
"""

from types import SimpleNamespace

TABLE = """
                    tiny    nano    small      base
    vocab            300    1536     1536      1536    bytes and merges; special tokens are extra
    layers             1       2        4         8
    width             16      64      128       256
    heads              2       2        4         8
    context          256     352      352       512
    characters     20000  500000  6000000  20000000    of the built-in world's texts
    rows               4      12       16        64    windows per batch in stage 1; see ROW in s1_pretrain.py
    pretrain_steps     4     250     1000      4000
    instructions      40    4000    40000     60000
    instruct_steps     4      80     1000      2000
    rankings          12     300     2000      4000    prompts whose replies the simulated annotator ranks
    reward_steps       3      40      200       400
    prompts            4      32       32        32    in an RL step of stage 3
    prefer_steps       4       6       50       150
    problems          40    1500    20000     40000
    reason_steps       2      60     1250      3000
    reinforce_steps    2       2        6       100    RL steps after reason_steps
    exam_items         4      50      200       200    in an exam, roughly
"""

_header, *_rows = [line.split() for line in TABLE.strip().splitlines()]
SIZES = {
    size: SimpleNamespace(**{row[0]: int(row[column]) for row in _rows})
    for column, size in enumerate(_header, start=1)
}
