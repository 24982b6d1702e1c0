"""Exams on held-out questions: instructions, problems and tool calls. A reply is either right or wrong."""

import re
from functools import partial

from tinyllm.calls import CallMask
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.evaluation.intervals import proportion
from tinyllm.sampling import answer, generate, generate_replies
from tinyllm.world import conversations
from tinyllm.world.instructions import WITH_ANSWER, unseen_fixed_replies
from tinyllm.world.problems import steps_are_correct
from tinyllm.world.task import final_answer, is_correct
from tools.builtin import TOOLS
from tools.protocol import Call, parse, render_result
from tools.registry import Registry

# Token limits of replies: practically every solution fits.
STORY_TOKENS, LONG_STORY_TOKENS = 235, 270
LOGIC_TOKENS = {"order": 40, "truth": 48, "mistake": 235}


def replies_to(pool, tokenizer, tasks, tokens):
    """-> the text of one reply to each task"""
    return [text for text, _ in answer(pool, tokenizer, [task.prompt for task in tasks], tokens)]


def accuracy(tasks, replies, is_right=is_correct):
    """The share of tasks whose reply is right."""
    return proportion([is_right(task, text) for task, text in zip(tasks, replies)])


def exam(pool, tokenizer, tasks, tokens, is_right=is_correct):
    """The share of tasks that get a right reply in at most `tokens` tokens."""
    return accuracy(tasks, replies_to(pool, tokenizer, tasks, tokens), is_right)


def commonest_answer(tasks):
    """The share of tasks whose answer is the most common one among tasks of the same kind: a baseline
    without a model."""
    kinds = [[task.answer for task in tasks if task.kind == kind] for kind in {task.kind for task in tasks}]
    return sum(max(map(answers.count, answers)) for answers in kinds) / len(tasks)


def is_solved(task, text):
    return final_answer(text) == task.answer.lower()


def is_solved_with_valid_steps(task, text):
    return is_solved(task, text) and steps_are_correct(text)


def instructions(pool, tokenizer, world, items):
    """Held-out questions: in wordings that training uses and in new wordings, after a description of the
    tools, and as follow-ups. Also, questions about facts that the text of stage 1 states but no training
    question asks about; and small talk and unknown topics, in new wordings."""
    tasks, unseen = [], []
    for family in WITH_ANSWER:
        tasks += world.instructions("test", items // 4, family=family)
        unseen += world.instructions("test", items // 4, family=family, unseen=True)
    replies, ended = zip(*answer(pool, tokenizer, [task.prompt for task in tasks], 64))
    yes_no = [is_correct(task, text) for task, text in zip(tasks, replies) if task.kind == "yes_no"]
    with_tools = list(map(conversations.with_tools, tasks))
    follow_ups = world.instructions("test", items, family="follow_up")
    facts = world.held_out_fact_questions()
    return {
        "instruction_exact": accuracy(tasks, replies),
        "instruction_exact_commonest_answer": commonest_answer(tasks),
        "instruction_exact_with_tools": exam(pool, tokenizer, with_tools, 64),
        "follow_up_exact": exam(pool, tokenizer, follow_ups, 64),
        "small_talk_exact": exam(pool, tokenizer, unseen_fixed_replies("small_talk"), 40),
        "unknown_topic_exact": exam(pool, tokenizer, unseen_fixed_replies("unknown_topic"), 40),
        "instruction_yes_no": proportion(yes_no),
        "fact_questions": exam(pool, tokenizer, facts[:: max(1, len(facts) // items)], 40),
        "unseen_wording": exam(pool, tokenizer, unseen, 64),
        "stops": proportion(ended),
    }


def reasoning(pool, tokenizer, world, items):
    """Multi-step problems, with and without a chain of thought, and logic problems."""
    stories = world.problems("test", items, kind="story")
    longer = world.problems("test", items, kind="story", steps=5)
    chains = replies_to(pool, tokenizer, stories, STORY_TOKENS)
    sums = [str(sum(map(int, re.findall(r"\d+", task.question)))) == task.answer for task in stories]
    results = {
        "reasoning_direct": accuracy(stories, answers_at_once(pool, tokenizer, stories), is_solved),
        "reasoning_exact": accuracy(stories, chains, is_solved),
        "reasoning_exact_commonest_answer": commonest_answer(stories),
        "reasoning_exact_add_all_numbers": sum(sums) / len(sums),
        "chain_valid": accuracy(stories, chains, is_solved_with_valid_steps),
        "reasoning_five_steps": exam(pool, tokenizer, longer, LONG_STORY_TOKENS, is_solved),
    }
    logic, replies = [], []
    for kind, tokens in LOGIC_TOKENS.items():
        tasks = world.problems("test", items * 7 // 20, kind=kind)
        texts = replies_to(pool, tokenizer, tasks, tokens)
        results[f"logic_{kind}"] = accuracy(tasks, texts, is_solved)
        logic, replies = logic + tasks, replies + texts
    results["logic_exact_commonest_answer"] = commonest_answer(logic)
    return results | {"logic_exact": accuracy(logic, replies, is_solved)}


def answers_at_once(pool, tokenizer, tasks):
    """Replies that begin with ####, so that no step comes before the answer."""
    marker = tokenizer.encode(" ####")  # the space after #### belongs to the next token
    prompts = [encode_prompt(tokenizer, task.prompt) + marker for task in tasks]
    replies = generate_replies(pool, tokenizer, prompts, 5)
    return [f"#### {decode_reply(tokenizer, ids)}" for ids in replies]


def tool_calls(pool, tokenizer, world, items):
    """Problems to solve with the calculator: is the call valid, is the final answer right, and is the call
    valid when the grammar's mask constrains it?"""
    registry, tasks = Registry(TOOLS), world.problems("test", items, kind="calculator")
    prompts = [task.prompt for task in tasks]
    done = converse_with_tools(pool, tokenizer, prompts, registry, 60, rounds=2)
    final = [messages[-1]["content"] for messages in done]
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    masked = pool.map(partial(_masked_calls, tokenizer=tokenizer, tokens=120), encoded, size=64)
    valid = [valid_call(messages[1]["content"], registry) is not None for messages in done]
    valid_masked = [valid_call(text, registry) is not None for text in masked]
    return {
        "calculator_exact": accuracy(tasks, final, is_solved),
        "tool_call_valid": proportion(valid),
        "tool_call_valid_masked": proportion(valid_masked),
    }


def _masked_calls(model, prompts, tokenizer, tokens):
    mask = CallMask(tokenizer, Registry(TOOLS), only=True)
    rows = generate(model, prompts, tokens, stop=mask.end, mask=mask)
    return [decode_reply(tokenizer, ids) for ids in rows]


def converse_with_tools(pool, tokenizer, conversations, registry, tokens, rounds=8):
    """Conversations -> the same conversations with the model's replies. After a valid call the tool
    runs, and the model reads the result and replies again, up to `rounds` replies in all."""
    waiting = done = [list(messages) for messages in conversations]
    for round in range(rounds):
        calling = []
        for messages, (text, _) in zip(waiting, answer(pool, tokenizer, waiting, tokens)):
            messages.append({"role": "assistant", "content": text})
            call = valid_call(text, registry)
            if call and round + 1 < rounds:
                result = registry.execute([call])[0].value
                messages.append({"role": "tool", "content": render_result(result)})
                calling.append(messages)
        waiting = calling
    return done


def valid_call(text, registry):
    """The only call in a reply, if it calls a known tool with valid arguments; otherwise None."""
    calls = [part for part in parse(text) if isinstance(part, Call)]
    return calls[0] if len(calls) == 1 and registry.accepts(calls[0]) else None
