"""make mutants: inject each fault into its own copy of the sources, and check that a test fails.

A test that stays green when the sign of an advantage is flipped proves nothing about the advantage. Each row
of the table is a fragment of a source file and the same fragment with a typical mistake. The test file of
that source runs first; if it stays green, all tests of its package run. Faults that survive are listed at the
end, and then the exit status is 1. With words as arguments, only faults whose row contains one of these words
are tried.
"""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parent.parent
COPIED = ("tinyllm", "tools", "audio", "tests", "exhibit", "pyproject.toml", "Makefile", "README.md")

TABLE = r"""
tinyllm/layers.py
    dw[present] = np.add.reduceat  =>  dw[present] += dout[starts] + 0 * np.add.reduceat
    dx -= n * along  =>  pass
    rope_forward(dout, rotations.conj())  =>  rope_forward(dout, rotations)
    ds -= inner[..., None, start:stop]  =>  pass
    seen = stop if causal else T  =>  seen = T
    dq *= 1 / math.sqrt(D)  =>  pass
    dgate = (s + silu * (1 - s))  =>  dgate = silu * (1 - s)
tinyllm/transformer.py
    if len(caches) >= self.frozen else None  =>  if len(caches) > self.frozen else None
    dx += d  # a + mlp(norm(a))  =>  dx = d  # a + mlp(norm(a))
    grads["embedding"] += d  =>  grads["embedding"][:] = d
    d, dx = scatter(d, at), scatter(dx, at)  =>  d, dx = scatter(d, at), scatter(0 * dx, at)
    DEVIATION / math.sqrt(writers)  =>  DEVIATION
tinyllm/objectives.py
    p[rows, y] -= share  =>  p[rows, y] += share
    np.array([1.0, -1.0])  =>  np.array([-1.0, 1.0])
    push = beta * np.exp(-np.logaddexp(0, margin))  =>  push = np.exp(-np.logaddexp(0, margin))
    below = ranks[:, :, None] < ranks  =>  below = ranks[:, :, None] <= ranks
    np.where(free <= clipped, free, 0)  =>  free
    log_ratio - kl[..., None]  =>  log_ratio
    old_log_probs, advantages * weights, total  =>  old_log_probs, advantages, total
    reference_logits, kl * weights, total  =>  reference_logits, weights, total
    return loss + penalty, dlogits + dpenalty  =>  return loss + penalty, dlogits
tinyllm/optimizer.py
    gradient *= limit / norm  =>  pass
    (step + 1) / (warmup + 1),  =>
    , (self.steps - step) / fall)  =>  )
    scale * rates.muon  =>  rates.muon
    scale * rates.adamw  =>  rates.adamw
    if part.decays else 0.0  =>
    d *= rate / (1 - beta1**t)  =>  d *= rate
    b @ a @ b if long else  =>  b @ a if long else
    orthogonalise(g + momentum * m)  =>  g + momentum * m
tinyllm/tokenizer.py
    for left, right in ((before[i], i), (i, after[i])):  =>  for left, right in ((i, after[i]),):
    if len(self) >= CACHE_LIMIT:  =>  if False:
    times * (self.head[end] != new)  =>  times
    (place - np.maximum.accumulate(place * starts)) % 2 == 0  =>  place % 2 == 0
    self.tail[end - 1] = new  =>  self.tail[second] = new
    before[after[i]] = i  =>  pass
tinyllm/data/conversation.py
    + [0] * len(after)  =>  + [1] * len(after)
    tokenizer.encode(last + content)  =>  tokenizer.encode(last) + tokenizer.encode(content)
    message["role"] == "assistant" and  =>
    whole.append(special[form.end])  =>  pass
    "weights": weights[..., 1:]  =>  "weights": weights[..., :-1]
    [*as_context(messages[:-1]), messages[-1]]  =>  messages
    and message.get("weight", 1) != 0  =>
tinyllm/data/corpus.py
    * (1 - share))  =>  )
    offset + order[i % count] * length  =>  order[i % count] * length
    np.flatnonzero(ids == ids[:1])[1:]  =>  []
tinyllm/data/batches.py
    self.replay / (1 - self.replay)  =>  0
    np.ones(length)  =>  np.zeros(length)
    for ids, mask in rows if fits(ids, context)]  =>  for ids, mask in rows]
    & (piece["weights"] > 0)  =>
    chosen & (fate < 0.8)  =>  chosen & (fate < 0.9)
    if anywhere else  =>  if False else
    rows, text, settings.tokens, settings.replay,  =>  rows, text, settings.tokens, 0.0,
    if messages[0]["role"] != "system"]  =>  ]
tinyllm/data/formats.py
    {"weight": 0} if message.get("weight") == 0 else {}  =>  {}
    == "val"  =>  == "never"
tinyllm/training.py
    if failure is None and self.signal  =>  if False
    optimizer.clip(self.pool.sum_gradients(len(jobs)))  =>  0.0 * self.pool.sum_gradients(len(jobs))[0]
    scale = rates.scale(step)  =>  scale = 1.0
    self.updates += 1  =>  pass
    self.pool.worker.moments[:] = 0  =>  pass
    whole.flat += gradient.flat  =>  pass
    shares[i // accumulate]  =>  shares[i % workers]
    outputs / (workers * LOGITS)  =>  outputs / (4 * workers * LOGITS)
    array[:] = tensors.pop(name)  =>  tensors.pop(name)
    file.truncate(min(sizes.get(name, 0), file.tell()))  =>  pass
    not math.isfinite(loss) or not math.isfinite(norm)  =>  False
    objective(out, **arguments, total=total)  =>  objective(out, **arguments, total=1)
    at = arguments["weights"] != 0  =>  at = arguments["weights"] > 0
tinyllm/runs.py
    and not settings.resume:  =>  and False:
    if made.get(key) != value  =>  if False
    and fingerprint(source["path"]) != source["sha256"]:  =>  and False:
    if old.get(kind, WORLD)["sha256"] != new[kind]["sha256"]:  =>  if False:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  =>  pass
    and not low <= value <= high:  =>  and False:
tinyllm/parallel.py
    LOGITS // (length * self.model.config.vocab)  =>  LOGITS // length
    self.model.frozen = config.layers - len(self.gradient.blocks)  =>  pass
    gradient += other  =>  pass
    os._exit(0)  =>  pass
    signal.signal(name, signal.SIG_IGN)  =>  pass
    results[rank :: self.workers] = part  =>  results[: len(part)] = part
    for i in np.argsort(order)]  =>  for i in order]
tinyllm/sampling.py
    w.reshape(-1)[:] = copy.reshape(-1)  =>  pass
    cumulative <= draws[:, None]  =>  cumulative <= 0.5 * draws[:, None]
    (lengths[alive] <= length) & (length < ends[alive])  =>  length < ends[alive]
    ends[rows[ids == stop]] = length + 1  =>  ends[rows[ids == stop]] = length
    start != begin  =>  begin is None
    room = min(context, ends.max())  =>  room = context
tinyllm/checkpoint/__init__.py
    piece = HEADS * config.head_dim * config.width  =>  piece = HEADS * config.width
    [b""] * (config.vocab - len(tokenizer))  =>  []
    "sha256" in notes and notes["sha256"] != digest(folder)  =>  False
    if not notes.get("finished"):  =>  if False:
tinyllm/checkpoint/stored.py
    [q & 15, q >> 4]  =>  [q >> 4, q & 15]
    q = q - np.float32(8)  =>  pass
    (scale * q + least)  =>  (scale * q - least)
    self.start + first // self.per_item  =>  self.start + 0 // self.per_item
tinyllm/checkpoint/gguf.py
    -reader.at % settings.get("general.alignment", 32)  =>  0
    if self.at > len(self.data):  =>  if False:
    [::-1], *self.numbers  =>  , *self.numbers
tinyllm/checkpoint/vocabulary.py
    pre == "llama-bpe")  =>  False)
    if kind in ADDED]  =>  ]
    system[1] if system else ""  =>  ""
    form = format_of(used)  =>  form = format_of(self.special)
tinyllm/commands/real.py
    read_notes(folder).get("settings") != settings  =>  not read_notes(folder)
    a and not b  =>  a
    if sha256(SMOLLM2) != SHA256:  =>  if False:
tinyllm/checkpoint/files.py
    os.fsync(file.fileno())  =>  pass
tinyllm/checkpoint/safetensors.py
    != [end, tensor.end]:  =>  == []:
tinyllm/checkpoint/huggingface.py
    "hidden_act": "silu", "attention_bias"  =>  "attention_bias"
tinyllm/report/svg.py
    top += GAP  =>  top += 1
    placed[i] = bottom = min(placed[i], bottom)  =>  bottom = min(placed[i], bottom)
    (warp(max(y, low)) - warp(low)) / (warp(high) - warp(low))  =>  (y - low) / (high - low)
tinyllm/report/journey.py
    ADVANTAGE = -1.0  =>  ADVANTAGE = 1.0
    rude, tokens)  =>  rude, 1)
    {"old_log_probs": before(rude)  =>  {"old_log_probs": 0 * before(rude)
    return dlogits[0, 1] if  =>  return dlogits[0, 0] if
tinyllm/report/record.py
    seed = [0] if self.kind == "s0" else None  =>  seed = None
    if "reward" in line or "score" in line  =>  if "reward" in line
    .split("\n")[:-1]  =>  .split("\n")
    return stages[-1], stages[-2:][0]  =>  return stages[-1], stages[-1]
tinyllm/report/panels.py
    return tag("b", "✓ ", "right") + escape(reply)  =>  return tag("b", "✓ ", "right") + reply
    p.diagonal(1 - len(once))  =>  p.diagonal(-len(once))
    total in (None, a) and  =>
    "down" if value > 0 else "up"  =>  "up" if value > 0 else "down"
    BANDS.get(run.size, {})  =>  {}
tinyllm/report/page.py
    except (TinyllmError, OSError) as missing  =>  except KeyError as missing
    Record(name, against)  =>  Record(name)
tinyllm/commands/train.py
    check_context(settings.folder("0-random"), conversations, ranked)  =>  pass
tinyllm/commands/report.py
    transformer.layers = layers  =>  pass
tinyllm/stages/s0_random.py
    np.random.default_rng(settings.seed)  =>  np.random.default_rng(0)
tinyllm/stages/s1_pretrain.py
    causal=not masked  =>  causal=True
    pieces = hide(batch(step), 1, step)  =>  pieces = batch(step)
    if path or masked:  =>  if path:
tinyllm/stages/s2_instruct.py
    settings, learned, size.characters  =>  settings, {}, size.characters
tinyllm/stages/s3_prefer.py
    np.where(sampled.ended, scores, TRUNCATED)  =>  scores
    penalties, mask = settings.kl * kl  =>  penalties, mask = 0 * kl
    kl=settings.kl  =>  kl=0
    range(algorithm.updates)  =>  range(1)
    rollouts.log_probs(reference,  =>  rollouts.log_probs(run.pool,
    worst > best_worst - 1.5 / VALIDATION_PROMPTS  =>  worst < best_worst
    run.model.params.flat[:] = run.state["best_parameters"]  =>  pass
tinyllm/stages/s4_reason.py
    rewards - group_mean(rewards)  =>  group_mean(rewards) - rewards
    np.array(correct) & sampled.ended  =>  np.array(correct)
    run.reset_moments()  =>  pass
    settings, learned, size.characters  =>  settings, {}, size.characters
    [batch], REINFORCE_RATES,  =>  [batch], rates,
    if ended and is_correct(task, text)  =>
    [*as_context(task.prompt),  =>  [*task.prompt,
    [conversations.in_chat(dice, world, task) for  =>  [task for
    "weights": advantages * mask  =>  "weights": advantages + 0 * mask
tinyllm/preferences/advantages.py
    - returns_after(penalties)  =>
    return returns(rewards) - rewards  =>  return returns(rewards)
    advantages[:, t] + lam * ahead  =>  advantages[:, t] + ahead
    keepdims=True) - returns) /  =>  keepdims=True)) /
tinyllm/objectives.py
    error = values - targets  =>  error = targets - values
tinyllm/preferences/rankings.py
    if rank < other]  =>  if rank > other]
tinyllm/preferences/reward_model.py
    [len(row) - 1 for row in rows]  =>  [-1 for row in rows]
    len(ids) - 1 for ids in padded  =>  len(ids) - 2 for ids in padded
    - scale["mean"]) / scale["deviation"]  =>  )
tinyllm/preferences/rollouts.py
    [0] * len(p) + [1] * len(reply)  =>  [1] * (len(p) + len(reply))
    reply[-1] == end  =>  True
tinyllm/preferences/annotator.py
    same_sort[sorts[i]]  =>  range(len(tasks))
tinyllm/world/conversations.py
    "she" if name in people.WOMEN else "he"  =>  "she"
    [make for make in makers if make not in (again, backwards)]  =>  makers
    .split(", ")[::-1])  =>  .split(", "))
    task = subject = opening(dice, world, split)  =>  task = opening(dice, world, split)
tinyllm/world/instructions.py
    unseen or split != "train")  =>  unseen)
    return trained if split == "train" else  =>  return
tinyllm/chat.py
    if self.mask and self.mask.only and messages[-1]["role"] == "tool"  =>  if False
    [*system, *messages[start:]])  =>  messages[start:])
    if may_end and is_loop(written.tolist()) else  =>  if is_loop(written.tolist()) else
    [*example, *self.history,  =>  [*example,
    for start in turns[-most:] if most else turns:  =>  for start in turns:
tinyllm/calls.py
    if len(begun) >= BEGUN:  =>  if tag:
tinyllm/evaluation/text.py
    * (size > 0)  =>
tinyllm/evaluation/preferences.py
    for a, b in pairs if a != b]  =>  for a, b in pairs]
    [a > b for a, b in better  =>  [a >= b for a, b in better
tinyllm/evaluation/generation.py
    is_solved(task, text) and steps_are_correct(text)  =>  is_solved(task, text)
    exam(pool, tokenizer, with_tools, 64)  =>  exam(pool, tokenizer, tasks, 64)
tinyllm/evaluation/exams.py
    check_sources(folder, learned_by(folder))  =>      pass
    .get("weights") == checkpoint.digest(folder)  =>  .get("weights") is not None
    size.exam_items if answers else  =>  size.exam_items if True else
tinyllm/evaluation/own.py
    messages[: len(prompt_of(messages)) + 1]  =>  messages
    prompts *= max(1, DUELS // len(prompts))  =>  pass
    (ours > others)  =>  (ours < others)
    normalise(a) == normalise(b)  =>  a == b
tinyllm/evaluation/intervals.py
    p + z2 / (2 * n)  =>  p
audio/options.py
    return present is not term.startswith("-")  =>  return present
    (kind == "a number" and value is True)  =>  False
    json.dumps(fields, allow_nan=False)  =>  json.dumps(fields)
audio/subtitles.py
    following.start if following else piece.end, start + LONGEST)  =>  start + LONGEST)
    width(lines[-1] + text) > LINE  =>  width(text) > LINE
    if inside(turn, word)  =>  if True
    i, j = next(agree, (i + 1, j + 1))  =>  i, j = i + 1, j + 1
    in "WF"  =>  in "F"
    if width(whole) <= LINE else texts  =>  if False else texts
audio/transcript.py
    if LABEL.fullmatch(speaker) else  =>  if len(speaker) <= 2 else
audio/reports.py
    kind not in HARMLESS or  =>  kind == "person_name" or
    if PARTS[part] in more)  =>  if False)
    for size in range(longest, 0, -1):  =>  for size in range(1, longest + 1):
audio/http.py
    status in (408, 425, 429)  =>  status in (429,)
    except (ssl.SSLError, ConnectionError) as error:  =>  except ConnectionError as error:
    "allow_redirects": False  =>  "allow_redirects": True
    status == 403 and "uploaded file" in words:  =>  status == 403:
audio/recording.py
    if not name.startswith(".")]  =>  ]
    \xff[\xe0-\xfd]  =>  \xff[\xe0-\xff]
audio/assemblyai.py
    if reason:  =>  if False:
    unique=not recording.url  =>  unique=True
    if recording.size > BIG and not self._key_works:  =>  if False:
audio/batch.py
    fcntl.flock(place, fcntl.LOCK_EX)  =>  pass
    written = {name: value for name, value in fields.items() if name != SECRET}  =>  written = fields
    save(Transcript({"audio_url": url}))  =>  pass
    if len(waiting) >= jobs:  =>  if len(waiting) > jobs:
    if error.status not in (400, 404, 410):  =>  if True:
audio/sandbox.py
    *canned.results(fields, heard), *SECRET  =>  *SECRET
    chunked = "chunked" in  =>  chunked = "never" in
    if length < 0:  =>  if False:
tools/json_reader.py
    if key in value:  =>  if False:
    if depth == MAX_DEPTH:  =>  if depth > MAX_DEPTH:
    if self.peek() in ("]", "}"):  =>  if False:
    if value in (float("inf"), float("-inf")):  =>  if False:
    "d800" <= code.lower() < "e000"  =>  "d800" <= code.lower() < "dc00"
tools/functions.py
    either([(schema, builds[name]), NULL])  =>  schema, builds[name]
    next(build for schema, build in pairs if is_valid(value, schema))  =>  pairs[0][1]
    if not validate(value, schema) else schema  =>
tools/validation.py
    exact(v) > exact(n)  =>  exact(v) >= exact(n)
    elif count > 1 and keyword == "oneOf":  =>  elif False:
    return kind, value  =>  return value
    seen[key] = next(problems(value, schema, "", root, seen), None)  =>  return next(problems(value, schema, "", root), None)
    same = kind_of(value) != "number" or exact(value) == Fraction(text.strip())  =>  same = True
    key=lambda part: not is_valid(value, part, root)  =>  key=lambda part: 0
tools/protocol.py
    if self._thinks or not self._text.startswith(OPEN):  =>  if not self._text.startswith(OPEN):
    if final or not error.cut_off else None  =>
    (Thought, [THOUGHT]) if self._thinks  =>  (Thought, [OPEN, THOUGHT]) if self._thinks
    and THINK not in part.text  =>  and False
    if ended:  =>  if True:
tools/registry.py
    function=inner.function if inner is function else function  =>  function=inner.function
    inspect.isawaitable(value) or  =>
    as_text(words.strip()[:500]), repeatable)  =>  as_text(words.strip()[:500]), True)
    "repeatable", False) or f"{item[0]}"  =>  "repeatable", False)
    failed("timeout", message, called.repeatable)  =>  failed("timeout", message, True)
    return True, parse(text)  =>  return True, json.loads(text)
tools/dialects.py
    if failed is None and isinstance(value, dict)  =>  if False and isinstance(value, dict)
    .replace("<", "\\u003c")  =>
    slots.get("ID", f"call_{i}")  =>  f"call_{i}"
tools/agent.py
    {call.id for call in calls} - {""}) == len(calls):  =>  {call.id for call in calls}) == len(calls):
    unanswered.pop(0)  =>  unanswered.clear()
    isinstance(part, (Thought, Call, BadCall) if native else Thought)  =>  isinstance(part, ())
    counts[key] += 1  =>  counts[key] += 1 / 9
tools/endpoint.py
    if kept and role == "user" == kept[-1]["role"]:  =>  if False:
    (r":|event:|id:|retry:")  =>  (r"event:|id:|retry:")
    raw.read1(65536  =>  raw.read(512
    return f"answered {response.status_code}  =>  return f"answered
    for each in (event, *choices)  =>  for each in choices
    again or [call for call in same if not is_complete(call)]  =>  again or same
    if not is_complete(same[-1]):  =>  if True:
tools/builtin.py
    return Rounded(number) if is_rounded else Fraction(number)  =>  return Fraction(number)
    "text": text[start:end]}  =>  "text": text[start : end - 1]}
audio/key.py
    session.trust_env = url.startswith("https")  =>  pass
tools/terminals.py
    floor(bound) + 1 if exclusive else ceil(bound)  =>  ceil(bound)
    limits = max(low - digit * unit, 0), min(high - digit * unit, unit - 1)  =>  limits = 0, unit - 1
    low, high = max(self.low - begins, 0), self.high - begins  =>  low, high = self.low, self.high - begins
tools/grammar.py
    Part(item, 0, room - 1)  =>  Part(item, 0, room)
    comma = len(needed) - (at == 0 < len(needed))  =>  comma = len(needed)
    if discriminator != first or any(  =>  if any(
    if required and sets and None not in sets:  =>  if sets and None not in sets:
    INNER & other.keys() if INNER & one.keys() else set()  =>  set()
tools/masks.py
    if item.low <= begun <= item.high)  =>  if begun <= item.high)
    by_need[more + 2] |= tokens  =>  by_need[more + 1] |= tokens
    within[left] |= child.tokens  =>  within[left] = child.tokens
    follow += [child] * (more == 0)  =>  pass
"""


def faults():
    """-> [(file, text, text with a fault)]"""
    rows, source = [], None
    for line in TABLE.strip().splitlines():
        if line.startswith(" "):
            text, faulty = line.split("=>")
            rows.append((source, text.strip(), faulty.strip()))
        else:
            source = line
    return rows


def test_file(source):
    """The test file that mirrors a source file."""
    path = Path(source)
    name = path.parent.name if path.name == "__init__.py" else path.stem
    return Path("tests") / path.parent / f"test_{name}.py"


def copy_sources(folder):
    for name in COPIED:
        place = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(place, folder / name, ignore=ignore) if place.is_dir() else shutil.copy(place, folder)


def status_of(tests, copy):
    """The exit status of pytest for one file or folder of tests: 0 if all pass, 1 if some fail."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not oracle",
        "-p",
        "no:cacheprovider",
        tests,
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run(command, check=False, cwd=copy, env=environment, capture_output=True).returncode


def tests_of(source):
    """The tests that run for a fault in `source`: its own test file, then all tests of its package."""
    return [
        tests
        for tests in (test_file(source), Path("tests") / Path(source).parts[0])
        if (ROOT / tests).exists()
    ]


def survives(fault):
    """Whether the tests stay green despite one fault."""
    source, line, faulty = fault
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_sources(copy)
        text = (copy / source).read_text(encoding="utf-8")
        (copy / source).write_text(text.replace(line, faulty), encoding="utf-8")
        for tests in tests_of(source):
            status = status_of(tests, copy)
            if status == 1:
                return False
            if status != 0:
                raise RuntimeError(f"{source}: pytest ended with {status} for the fault {faulty!r}")
    return True


def check_without_faults(sources):
    """Exit if a test fails in a copy without a fault: such a test would seem to find every fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(Path(folder))
        for tests in sorted({tests_of(source)[0] for source in sources}):
            if status_of(tests, Path(folder)) != 0:
                sys.exit(f"{tests} fails without any fault: fix it first")


def main(words):
    chosen = [fault for fault in faults() if not words or any(word in " ".join(fault) for word in words)]
    for source, line, _ in chosen:
        count = (ROOT / source).read_text(encoding="utf-8").count(line)
        if count != 1:
            sys.exit(f"{source}: {line!r} occurs {count} times; correct the table")
    check_without_faults({source for source, _, _ in chosen})
    with concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 2))) as threads:
        results = list(tqdm(threads.map(survives, chosen), total=len(chosen), desc="faults"))
    alive = [fault for fault, survived in zip(chosen, results) if survived]
    for source, line, faulty in alive:
        print(f"survived: {source}: {line.strip()!r} -> {faulty.strip()!r}")
    print(f"{len(chosen) - len(alive)} of {len(chosen)} faults killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
