"""Pictures in conversations: kept between turns, in forks and in files."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alloyforge as af
from alloyforge.media.keep import check_kept, settled
from tests.conftest import REFERENCE
from tests.test_vision import GREEDY, case_of, media_of, session_of

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endif %}\n"
    "{% endfor %}assistant: "
)


def picture_and(text: str, picture: object) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": text}]}


@pytest.fixture
def pictures() -> list[str]:
    found: list[str] = media_of("llava", case_of("llava")[0])["images"]
    return found


@pytest.mark.parametrize("has_cache", [True, False])
def test_turns_are_chats(pictures: list[str], has_cache: bool, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "chat"
    with session_of(REFERENCE / "llava", prefix_cache=has_cache) as session:

        def whole(messages: list[Any]) -> list[int]:
            return session.chat(messages, template=TEMPLATE, **GREEDY).tokens

        chat = session.conversation(template=TEMPLATE)
        said: list[Any] = [picture_and("what is it that stands there?", pictures[0])]
        first = chat.send(said[0], **GREEDY)
        assert first.tokens == whole(said)
        said += [first.message, {"role": "user", "content": "and its colour, in one word?"}]
        second = chat.send("and its colour, in one word?", **GREEDY)
        assert second.tokens == whole(said)
        # the picture's 36 rows among them
        assert second.usage.cached_tokens >= 64
        fork = chat.fork()
        said += [second.message, picture_and("is this the same?", pictures[1])]
        third = chat.send(said[-1], **GREEDY)
        assert third.tokens == whole(said)
        assert third.usage.cached_tokens >= 96
        # another picture in the same place finds nothing of the first one's behind it
        other = [picture_and("what is it that stands there?", pictures[1])]
        assert session.conversation(template=TEMPLATE).send(other[0], **GREEDY).tokens == whole(other)
        assert fork.send("why?", **GREEDY).tokens == whole([*said[:4], {"role": "user", "content": "why?"}])
        chat.save(path)
        messages = chat.messages
        assert json.loads(json.dumps(messages)) == messages
    with session_of(REFERENCE / "llava", prefix_cache=has_cache) as session:
        chat = session.conversation(template=TEMPLATE)
        chat.restore(path)
        assert chat.messages == messages
        fourth = chat.send("why?", **GREEDY)
        assert fourth.usage.cached_tokens >= 128
        want = session.chat([*messages, {"role": "user", "content": "why?"}], template=TEMPLATE, **GREEDY)
        assert fourth.tokens == want.tokens


def test_what_was_handed_over_stays_what_it_was(pictures: list[str]) -> None:
    with Image.open(pictures[0]) as image:
        image.load()
    array = np.array(image.convert("RGB"))
    with session_of(REFERENCE / "llava") as session:
        chat = session.conversation(template=TEMPLATE)
        chat.send(picture_and("look", array), **GREEDY)
        array[:] = 0
        answer = chat.send("again", **GREEDY)
        messages = [picture_and("look", pictures[0]), chat.messages[1], {"role": "user", "content": "again"}]
        assert answer.tokens == session.chat(messages, template=TEMPLATE, **GREEDY).tokens


def test_kinds_of_pictures_become_addresses(pictures: list[str]) -> None:
    data = pathlib.Path(pictures[0]).read_bytes()
    with Image.open(pictures[0]) as image:
        for given in (pictures[0], pathlib.Path(pictures[0]), data, image):
            part = settled(picture_and("a text", given), "messages[0]")["content"][0]
            assert part["type"] == "image_url"
            assert part["image_url"]["url"].startswith("data:application/octet-stream;base64,iVBOR")
    text = {"role": "user", "content": "a text"}
    assert settled(text, "messages[0]") is text
    video = {
        "role": "user",
        "content": [{"type": "video", "video": af.Video(np.zeros((2, 4, 4, 3), np.uint8))}],
    }
    assert settled(video, "messages[0]") == video
    with pytest.raises(FileNotFoundError):
        settled(picture_and("a text", "no/such/picture.png"), "messages[0]")


@pytest.mark.parametrize("address", ["http://127.0.0.1/a.png", "file:///etc/passwd", "/etc/passwd", None, 7])
def test_a_file_asks_for_nothing_outside(address: object) -> None:
    part = {"type": "image_url", "image_url": {"url": address}}
    with pytest.raises(af.InvalidRequestError, match="not in it"):
        check_kept([{"role": "user", "content": [part]}])
    with pytest.raises(af.InvalidRequestError, match="not in it"):
        check_kept([{"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}])
    check_kept([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,a"}}]}])
