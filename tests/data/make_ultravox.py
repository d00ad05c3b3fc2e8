#!/usr/bin/env python3
"""Write reference/ultravox: a tiny random model of Ultravox's kind, and what it gives.

usage: make_ultravox.py            (pip install torch transformers)

transformers has no class for it: its encoder and its decoder are transformers' own, and the projector
between them is written down here after its description (frames side by side, norm, product, SwiGLU whose
gate is the second half, norm, product). `projector_ln_mid` makes the second norm's place, both are written.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import wave

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

HERE = pathlib.Path(__file__).parent / "reference"
SOURCE, TARGET = HERE / "qwen2_audio", HERE / "ultravox"
FACTOR, WIDE = 4, 48
PROMPT = "<|im_start|>user\ngreen <|audio|> and <|audio|>\nspeech fox<|im_end|>\n<|im_start|>assistant\n"


def sounds() -> list[np.ndarray]:
    found = []
    for path in sorted((SOURCE / "media").glob("*.wav")):
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        found.append(data.astype(np.float32) / 32768)
    return found


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def main() -> None:
    torch.manual_seed(7)
    audio = WhisperConfig(
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=80,
        num_mel_bins=40,
        max_source_positions=100,
        activation_function="gelu",
    )
    text = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        rope_theta=10000.0,
    )
    encoder, decoder = WhisperEncoder(audio).eval(), LlamaForCausalLM(text).eval()
    with torch.no_grad():
        for name, p in [*encoder.named_parameters(), *decoder.named_parameters()]:
            if p.dim() > 1:
                p.copy_(torch.randn_like(p) * (p[0].numel() ** -0.5))
            elif "norm" in name and "bias" not in name:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            else:
                p.copy_(0.3 * torch.randn_like(p))
    wide = audio.d_model * FACTOR
    head = {
        "ln_pre": 1 + 0.3 * torch.randn(wide),
        "linear_1": torch.randn(2 * WIDE, wide) * wide**-0.5,
        "ln_mid": 1 + 0.3 * torch.randn(WIDE),
        "linear_2": torch.randn(64, WIDE) * WIDE**-0.5,
        "ln_post": 1 + 0.3 * torch.randn(64),
    }
    extractor = WhisperFeatureExtractor(feature_size=40, chunk_length=2)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(SOURCE / "tokenizer.json"))

    def rows(samples: np.ndarray, norms_inside: bool) -> torch.Tensor:
        found = extractor(
            samples,
            sampling_rate=16000,
            padding="longest",
            pad_to_multiple_of=160,
            truncation=False,
            return_tensors="pt",
        ).input_features
        # transformers' own encoder wants whole windows; the layers are called without that check
        x = torch.nn.functional.gelu(encoder.conv1(found))
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        for layer in encoder.layers:
            out = layer(x, None)
            x = out[0] if isinstance(out, tuple) else out
        x = encoder.layer_norm(x)[0]
        x = torch.nn.functional.pad(x, (0, 0, 0, -len(x) % FACTOR)).reshape(-1, wide)
        x = rms(x, head["ln_pre"]) @ head["linear_1"].T
        value, gate = x.chunk(2, -1)
        x = torch.nn.functional.silu(gate) * value
        if norms_inside:
            return rms(x, head["ln_mid"]) @ head["linear_2"].T
        return rms(x @ head["linear_2"].T, head["ln_post"])

    expected: dict[str, torch.Tensor] = {}
    clips = sounds()
    for place, norms_inside in (("mid", True), ("post", False)):
        with torch.no_grad():
            made = [rows(clip, norms_inside) for clip in clips]
            parts, embed = PROMPT.split("<|audio|>"), decoder.get_input_embeddings()
            pieces = []
            for i, part in enumerate(parts):
                ids = tokenizer(part, add_special_tokens=False).input_ids
                pieces.append(embed(torch.tensor(ids)))
                pieces += made[i : i + 1]
            embeds = torch.cat(pieces)[None]
            logits = decoder(inputs_embeds=embeds).logits[0]
            expected[f"logits_{place}"] = logits.clone()
            greedy = []
            for _ in range(16):
                greedy.append(int(logits[-1].argmax()))
                embeds = torch.cat([embeds, embed(torch.tensor([[greedy[-1]]]))], 1)
                logits = decoder(inputs_embeds=embeds).logits[0]
            expected[f"greedy_{place}"] = torch.tensor(greedy)
            print(place, [len(m) for m in made], greedy, float(expected[f"logits_{place}"].abs().max()))
    TARGET.mkdir(exist_ok=True)
    tensors = {f"audio_tower.{k}": v for k, v in encoder.state_dict().items()}
    tensors |= {f"language_model.{k}": v for k, v in decoder.state_dict().items()}
    for name, value in head.items():
        tensors[f"multi_modal_projector.{name}.weight"] = value
    save_file({k: v.contiguous() for k, v in tensors.items()}, TARGET / "model.safetensors")
    save_file(expected, TARGET / "expected.safetensors")
    config = {
        "architectures": ["UltravoxModel"],
        "model_type": "ultravox",
        "audio_token_index": 319,
        "hidden_size": 2 * WIDE,
        "stack_factor": FACTOR,
        "projector_act": "swiglu",
        "projector_ln_mid": True,
        "norm_init": 0.4,
        "ignore_index": -100,
        "vocab_size": 320,
        "torch_dtype": "float32",
        "audio_config": audio.to_dict(),
        "text_config": text.to_dict(),
    }
    for half in ("audio_config", "text_config"):
        config[half] = {k: v for k, v in config[half].items() if v is not None and "transformers" not in k}
    (TARGET / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SOURCE / name, TARGET / name)
    (TARGET / "prompt.txt").write_text(PROMPT)


if __name__ == "__main__":
    main()
