#!/usr/bin/env python3
"""Write `NAME.json`: what llama.cpp makes of a model, for test_real_models.py.

usage: make_golden.py smollm2|gemma3 MODEL.gguf

For each prompt: its ids, the greedy continuation, and how many of its tokens are sure. Both engines
round activations on a quantised file, each in its own way, so two logits that are close may swap;
the continuation counts as sure up to the first token that wins by less than MARGIN.
Needs llama-cpp-python.
"""

import json
import pathlib
import sys

import llama_cpp
import numpy as np

MARGIN = 0.5
LENGTH = 24
QUESTION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = {
    "smollm2": {
        "capital": "The capital of France is",
        "count": "1, 2, 3, 4, 5, 6,",
        "even": "2, 4, 6, 8, 10,",
        "alphabet": "The alphabet begins: A, B, C, D,",
        "roses": "Roses are red, violets are",
        "greeting": QUESTION.format("Hello!"),
        "gravity": QUESTION.format("What is gravity?"),
        "sky": QUESTION.format("Why is the sky blue?"),
    },
    "gemma3": {
        "capital": "The capital of France is",
        "count": "1, 2, 3, 4, 5, 6,",
        "days": "Monday, Tuesday, Wednesday,",
        "fox": "The quick brown fox jumps over the lazy",
        "german": "Die Hauptstadt von Deutschland ist",
        "japanese": "日本の首都は",
        "code": "def add(a, b):\n    return a + b\n\ndef subtract(a, b):\n    return",
    },
}


def main() -> None:
    log = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(log, None)
    name, path = sys.argv[1:]
    model = llama_cpp.Llama(path, n_ctx=512, logits_all=True, verbose=False, flash_attn=False)
    cases = {}
    for case, prompt in PROMPTS[name].items():
        ids = model.tokenize(prompt.encode(), add_bos=True, special=True)
        model.reset()
        model.eval(ids)
        tokens, sure = [], None
        for i in range(LENGTH):
            row = model.scores[model.n_tokens - 1]
            second, first = np.sort(row)[-2:]
            if sure is None and first - second < MARGIN:
                sure = i
            tokens.append(int(np.argmax(row)))
            model.eval(tokens[-1:])
        sure = LENGTH if sure is None else sure
        cases[case] = {"prompt": prompt, "ids": ids, "greedy": tokens, "sure": sure}
    rows = ",\n".join(f"{json.dumps(case)}: {json.dumps(found)}" for case, found in cases.items())
    pathlib.Path(__file__).with_name(f"{name}.json").write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
