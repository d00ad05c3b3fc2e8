"""Describe a picture with a vision-language model.

usage: describe_picture.py MODEL PICTURE [--question TEXT] [--max-tokens N]

MODEL is a folder with `config.json` and `*.safetensors`, or a GGUF file with `--projector`.
"""

from __future__ import annotations

import argparse

import alloyforge as af


def main() -> None:
    """Streams the answer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--projector", help="the model's `mmproj` file")
    parser.add_argument("--question", default="Describe this picture.")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--template", help="a chat template in place of the model's own")
    arguments = parser.parse_args()

    content = [
        {"type": "image", "image": arguments.picture},
        {"type": "text", "text": arguments.question},
    ]
    with af.Session(arguments.model, projector=arguments.projector) as session:
        messages = [{"role": "user", "content": content}]
        options = {"max_tokens": arguments.max_tokens, "temperature": 0.0}
        for chunk in session.stream_chat(messages, template=arguments.template, **options):
            print(chunk.text, end="", flush=True)
        print()


if __name__ == "__main__":
    main()
