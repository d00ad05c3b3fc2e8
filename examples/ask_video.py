"""Ask a vision-language model about a video.

usage: ask_video.py MODEL VIDEO QUESTION [--max-tokens N]

MODEL is a Qwen-VL or SmolVLM2 folder; VIDEO a file that PyAV decodes (extra `media`).
"""

from __future__ import annotations

import argparse

import alloyforge as af


def main() -> None:
    """Asks twice, the second time from what the first left in the prefix cache."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("question")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--template", help="a chat template in place of the model's own")
    arguments = parser.parse_args()

    content = [
        {"type": "video", "video": arguments.video},
        {"type": "text", "text": arguments.question},
    ]
    with af.Session(arguments.model) as session:
        for _ in range(2):
            answer = session.chat(
                [{"role": "user", "content": content}],
                template=arguments.template,
                max_tokens=arguments.max_tokens,
                temperature=0.0,
            )
            print(answer.text)
            usage, timings = answer.usage, answer.timings
            print(
                f"[{usage.cached_tokens} of {usage.prompt_tokens} tokens cached, {timings.first_token:.2f} s]"
            )


if __name__ == "__main__":
    main()
