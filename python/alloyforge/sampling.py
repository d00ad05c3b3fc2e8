"""The names and types of the sampling parameters.

`Sampling` is what every generating call takes as keywords. The core checks the values: an unknown
name is a `TypeError`, a value out of range an `InvalidRequestError` that names it, and `None` means
that nothing was said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class Sampling(TypedDict, total=False):
    """How the tokens of an answer are drawn.

    The stages act in this order: `logit_bias`, the penalties, DRY, `temperature`, `top_n_sigma`,
    `top_k`, `typical_p`, `top_p`, `min_p`, XTC; mirostat takes the place of the five truncations
    before XTC and of XTC. Where a parameter is not given, the model's `generation_config.json`
    speaks, then the neutral value, which switches the stage off.
    """

    max_tokens: int | None
    """Most tokens to draw; as many as the context holds where nothing is said."""
    temperature: float | None
    """The divisor of the logits; 0 is greedy, and the lowest token id wins a tie."""
    top_k: int | None
    """Keeps the `k` most probable; 0 keeps all."""
    top_p: float | None
    """Keeps the fewest tokens whose probabilities reach `p`, from 0 to 1."""
    min_p: float | None
    """Keeps tokens of at least this share of the highest probability."""
    typical_p: float | None
    """Keeps the most typical tokens whose probabilities reach `p`, from 0 to 1."""
    top_n_sigma: float | None
    """Keeps logits within `n` standard deviations of the highest; 0 keeps all."""
    xtc_probability: float | None
    """The chance that XTC acts on a step, from 0 to 1."""
    xtc_threshold: float | None
    """The probability from which a token is a top choice to XTC, from 0 to 1."""
    mirostat: bool | int | tuple[float, float] | Mapping[str, float] | None
    """Mirostat 2: `True` or 2, or its two parameters as `(tau, eta)` or `{"tau": 5.0, "eta": 0.1}`."""
    mirostat_tau: float | None
    """Its target surprise, in bits."""
    mirostat_eta: float | None
    """Its learning rate, from 0 to 1."""
    repetition_penalty: float | None
    """Divides positive and multiplies negative logits of tokens seen; positive, 1 is neutral."""
    frequency_penalty: float | None
    """Subtracted once for each time that a token was drawn."""
    presence_penalty: float | None
    """Subtracted where a token was drawn."""
    dry_multiplier: float | None
    """The factor of the penalty on repeated sequences; 0 switches it off."""
    dry_base: float | None
    """The base of its growth with the repeat's length, at least 1."""
    dry_allowed_length: int | None
    """Repeats up to this many tokens go unpunished."""
    dry_sequence_breakers: Sequence[str] | None
    """Texts across which no repeat is counted."""
    logit_bias: Mapping[int, float] | None
    """Added to the logits of these tokens; `-inf` forbids one."""
    seed: int | None
    """Same seed, same request: the same tokens."""
    n: int | None
    """Answers to draw."""
    stop: str | Sequence[str] | None
    """Texts that end the answer, which leaves them out."""
    stop_tokens: Sequence[int] | None
    """Tokens that end the answer, beside the model's own."""
    ignore_eos: bool | None
    """Whether the model's own end tokens are drawn like any other."""
    logprobs: int | None
    """How many alternatives to give with each token's log probability."""
    priority: Literal["low", "normal", "high", "critical"] | None
    """Who goes first."""
    timeout: float | None
    """Seconds after which the request fails with `RequestTimeout`."""
    schema: Mapping[str, Any] | str | bool | type | None
    """A JSON Schema that the answer is JSON of, as a dictionary, as JSON, or as a pydantic model; the object
    is the completion's `parsed`. What cannot be kept to is an error."""
    regex: str | None
    """A regular expression that the whole answer matches."""
    grammar: str | None
    """A grammar of the answer, in llguidance's dialect of Lark, which begins with the rule `start`."""
