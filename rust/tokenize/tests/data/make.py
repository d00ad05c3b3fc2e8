#!/usr/bin/env python3
"""Makes the small vocabularies beside this file and the ids that others give for texts.

usage: make.py            (needs llama-cpp-python, gguf, sentencepiece, protobuf and tokenizers)

Vocabularies are trained here, on the lines below. GGUF ones are written as their metadata in JSON, and
the ids are llama.cpp's; those of `*.tokenizer.json` are the `tokenizers` package's. Byte pair encodings
are trained on whole lines, so that their merges reach across words and ids show where a pre-tokenizer
cuts.
"""

import ctypes
import io
import json
import pathlib
import re
import tempfile

import gguf
import llama_cpp
import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = pathlib.Path(__file__).parent

LINES = (
    """
The quick brown fox jumps over the lazy dog, and the dog didn't mind: it's 12:45, isn't it?
I'll say we've seen 1234567 of them; you're sure they'd all been there in 2024 or 1999.
def area(width, height):\n    return width * height  # 3.14159, not 22/7
for (int i = 0; i < 100; ++i) {\n\t\tsum += values[i] * 0.5;\n}\n\n\n
{"name": "alloy", "parts": [1, 22, 333, 4444], "done": false}
<html>  <body class="a b">Hello,   world!</body>  </html>
HELLO World helloWorld HTTPServer getURL can't CAN'T Don'T we'LL
Ein schöner Tag im Mai; Äpfel, Öl und Straße kosten 3,50 €.
L'été à Paris, où l'on naît déjà naïf: ça va? Cafe\u0301 noir.
Привет, мир! Как дела? Съешь же ещё этих мягких французских булок.
中文字符和标点，混合 English 与 123 数字。日本語のテキスト、カタカナも。
한국어 문장도 있습니다. नमस्ते दुनिया, कैसे हो? สวัสดีชาวโลก
emoji 🦀🚀 and 👩‍👩‍👧 families, arrows → ⇒, maths ∑ x² ≤ √2, ½ cup №5 Ⅻ
tabs\tand\tmore\t\ttabs, trailing spaces   \n   leading spaces\r\n\r\nwindows lines
snake_case_name kebab-case-name CamelCaseName 0xDEADBEEF 1e-10 $100 50% a@b.c #tag ~ ^ ` |
""".strip()
    .replace("\\n", "\n")
    .split("\n")
)
LINES = [line for line in LINES if line]

TEXTS = [
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    " \n",
    "\t",
    "\r\n\r\n  x",
    "a",
    " a",
    "  a b  ",
    "Hello, world! The quick brown fox",
    "I'll say we've DON'T you'RE 'tis rock'n'roll 'S 'ſ",
    "123 1234 1234567 12,345.67 3.14159 x1y22z333  44",
    "def area(width, height):\n    return width * height\n",
    '{\n\t"a": [1, 22],\r\n\t\t"b": null\n}\n\n\n',
    "HELLOWorld getURL HTTPServer iPhone SCREAMING",
    "Äpfel & Öl: 3,50 € — “naïve” café cafe\u0301 ÀÉ",
    "Привет, МИР! ещё Ёлка",
    "中文字符，混合 English123。日本語、カタカナ ｶﾀ ！？",
    "한국어 문장 नमस्ते कैसे สวัสดี 123ก็",
    "🦀🚀 👩‍👩‍👧 → ∑x² ≤ √2 ½ № Ⅻ ²³ ٣٤٥٦",
    "a\u00a0b\u3000c\u2003\u2028d\u0085e\u200bf \u3000 ",
    "snake_case kebab-case 0xDEAD $100 50% a@b.c #t ~^`|<>=+ (a) [b] {c}/d\\e...!!?\n",
    "   leading\n  \n trailing   \t ",
    "<s>hi</s> <|im_end|><u>  <u> <|im_start|>  x <sep>",
    "\u0301\u0301a \ue000\uffff\ufffd \U0001d400𝒜 \x01\x7f",
]


def say_nothing(level, text, data):
    pass


QUIET = llama_cpp.llama_log_callback(say_nothing)
llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))


class Llama:
    """llama.cpp's tokenizer of a vocabulary."""

    def __init__(self, metadata):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "vocabulary.gguf"
            writer = gguf.GGUFWriter(path, "llama")
            for key, value in metadata.items():
                if isinstance(value, bool):
                    writer.add_bool(key, value)
                elif isinstance(value, int):
                    writer.add_uint32(key, value)
                elif isinstance(value, str):
                    writer.add_string(key, value)
                elif key.endswith("charsmap"):
                    writer.add_array(key, bytes(value))
                elif value:
                    writer.add_array(key, value)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
            params = llama_cpp.llama_model_default_params()
            params.vocab_only = True
            self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp refuses {metadata.get('tokenizer.ggml.pre')}")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)

    def __call__(self, text, special=False):
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 16))()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), False, special)
        return list(ids[:count])

    def ends(self):
        count = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        return [i for i in range(count) if llama_cpp.llama_vocab_is_eog(self.vocabulary, i)]


def write(name, data):
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    # A line a case or entry keeps differences readable.
    text = re.sub(r'(\{"(?:special|names)")', r"\n\1", text)
    (HERE / name).write_text(text + "\n")
    print(name, len(text))


def cases(llama, texts=TEXTS):
    found = []
    for special in (False, True):
        for text in texts:
            ids = llama(text, special)
            if not special or ids != llama(text):
                found.append({"special": special, "text": text, "ids": ids})
    return found


def trained(byte_level):
    tokenizer = Tokenizer(models.BPE())
    lines, alphabet = LINES + TEXTS, []
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        lines = [line.replace(" ", "▁") for line in lines]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=alphabet, show_progress=False, max_token_length=9
    )
    tokenizer.train_from_iterator(lines * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].get), merges


def bpe(model, tokens, merges, bytes_too):
    special = [("<s>", 3), ("</s>", 3), ("<sep>", 3), ("<|im_end|>", 4), ("<|im_start|>", 3), ("<u>", 4)]
    if bytes_too:
        special += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    size = len(tokens)
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": tokens + [text for text, _ in special],
        "tokenizer.ggml.token_type": [1] * size + [kind for _, kind in special],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": size,
        "tokenizer.ggml.eos_token_id": size + 1,
        "tokenizer.ggml.seperator_token_id": size + 2,
    }


def pre_tokenizer_names():
    table = (HERE / "../../src/pre_tokenizers.rs").read_text()
    table = table[table.index("const TABLE") : table.index("/// The pre-tokenizer called")]
    names = []
    for block in re.findall(r"&\[([^\[\]]*?)\],\s*(?:PreTokenizer|[A-Z0-9_]+)", table):
        names += re.findall(r'"([^"]+)"', block)
    return names


def make_bpe():
    names = [name for name in pre_tokenizer_names() if name != "whitespace"]
    for file, plain in (("bpe.json", False), ("plain_bpe.json", True)):
        own = [n for n in names if (n in ("gemma4", "granite-embed-multi-311m", "sarvam-moe")) == plain]
        metadata = bpe("gpt2", *trained(not plain), plain)
        groups = {}
        for name in own:
            llama = Llama(metadata | {"tokenizer.ggml.pre": name})
            ids = [llama(text) for text in TEXTS]
            special = [llama(text, True) for text in TEXTS[-2:]]
            groups.setdefault(json.dumps([ids, special]), []).append(name)
        default = Llama(metadata)
        entry = {"texts": TEXTS, "default": [default(text) for text in TEXTS]}
        entry["groups"] = [
            {"names": names, "ids": json.loads(key)[0], "special_of_last": json.loads(key)[1]}
            for key, names in groups.items()
        ]
        write(file, {"metadata": metadata, **entry})
    tokens, merges = trained(False)
    metadata = bpe("whitespace", tokens, list(merges), True) | {
        "tokenizer.ggml.pre": "whitespace",
        "tokenizer.ggml.normalizer.lowercase": True,
    }
    write("whitespace.json", {"metadata": metadata, "cases": cases(Llama(metadata))})


def train_sentencepiece(kind, size, rules=None):
    with tempfile.TemporaryDirectory() as folder:
        normal = {}
        if rules:
            path = pathlib.Path(folder) / "rules.tsv"
            lines = ["\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) for rule in rules]
            path.write_text("\n".join(lines) + "\n")
            normal = {"normalization_rule_tsv": str(path)}
        else:
            normal = {"normalization_rule_name": "identity"}
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES * 4),
            model_writer=out,
            model_type=kind,
            vocab_size=size,
            byte_fallback=kind == "bpe",
            user_defined_symbols=["<u>"],
            control_symbols=["<|im_end|>", "<|im_start|>"],
            remove_extra_whitespaces=kind == "unigram",
            minloglevel=2,
            character_coverage=0.98,
            num_threads=1,
            **normal,
        )
    return out.getvalue()


def sentencepiece_metadata(model, data):
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    tokens, scores, kinds = [], [], []
    for i in range(processor.get_piece_size()):
        tokens.append(processor.id_to_piece(i))
        scores.append(processor.get_score(i))
        kinds.append(
            2
            if processor.is_unknown(i)
            else 3
            if processor.is_control(i)
            else 6
            if processor.is_byte(i)
            else 4
            if tokens[-1] == "<u>"
            else 1
        )
    return processor, {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def make_sentencepiece():
    processor, metadata = sentencepiece_metadata("llama", train_sentencepiece("bpe", 800))
    llama = Llama(metadata)
    # SentencePiece itself agrees wherever no special token stands in the text.
    plain = [text for text in TEXTS if "<" not in text and text]
    wrong = [text for text in plain if processor.encode(text) != llama(text)]
    print("SentencePiece and llama.cpp differ on", wrong)
    no_prefix = metadata | {"tokenizer.ggml.add_space_prefix": False}
    write(
        "spm.json",
        {
            "metadata": metadata,
            "cases": cases(llama),
            "ends": llama.ends(),
            "without_prefix": [Llama(no_prefix)(text) for text in TEXTS],
            "texts": TEXTS,
        },
    )

    rules = [
        ("½", "1/2"),
        ("²", "2"),
        ("Ａ", "A"),
        ("！", "!"),
        ("？", "?"),
        ("\u00a0", " "),
        ("\u3000", " "),
        ("\t", " "),
        ("\n", " "),
        ("\r", " "),
        ("e\u0301", "é"),
        ("\u200b", ""),
        ("№", "No"),
    ]
    data = train_sentencepiece("unigram", 280, rules)
    processor, metadata = sentencepiece_metadata("t5", data)
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto.FromString(data)
    metadata |= {
        "tokenizer.ggml.precompiled_charsmap": list(model.normalizer_spec.precompiled_charsmap),
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
    }
    llama = Llama(metadata)
    wrong = [text for text in plain if processor.encode(text) != llama(text)]
    print("SentencePiece and llama.cpp differ on", wrong)
    keep = metadata | {"tokenizer.ggml.remove_extra_whitespaces": False}
    write(
        "unigram.json",
        {
            "metadata": metadata,
            "cases": cases(llama),
            "texts": TEXTS,
            "keeping_whitespace": [Llama(keep)(text) for text in TEXTS],
        },
    )


def make_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        LINES * 4,
        trainers.WordPieceTrainer(
            vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
        ),
    )
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    marked = [
        t
        if t.startswith("[") and t.endswith("]") and len(t) > 2
        else t[2:]
        if t.startswith("##")
        else "▁" + t
        for t in tokens
    ]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "jina-v1-en",
        "tokenizer.ggml.tokens": marked,
        "tokenizer.ggml.token_type": [3] * 5 + [1] * (len(marked) - 5),
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.mask_token_id": 4,
    }
    cased = metadata | {"tokenizer.ggml.normalizer.lowercase": False}
    write(
        "wordpiece.json",
        {
            "metadata": metadata,
            "cases": cases(Llama(metadata), [*TEXTS, "[CLS] hi [MASK]"]),
            "texts": TEXTS,
            "cased": [Llama(cased)(text) for text in TEXTS],
        },
    )


def make_rwkv_and_plamo2():
    words = [f"\\x{b:02x}" for b in range(256) if not 32 <= b < 127 or chr(b) == "\\"] + [
        chr(b) for b in range(32, 127) if b != 92
    ]
    words += [
        "the",
        " the",
        "The",
        "ing",
        "\\n\\n",
        "\\t\\t",
        "don't",
        "é",
        "中",
        "文",
        "中文",
        "   ",
        "12",
        "\\x00\\x01",
    ]
    metadata = {
        "tokenizer.ggml.model": "rwkv",
        "tokenizer.ggml.tokens": ["<s>", *words],
        "tokenizer.ggml.token_type": [3] + [1] * len(words),
    }
    # llama.cpp finds `<s>` in any text here; a control token is none unless asked for.
    texts = [text for text in TEXTS if "<s>" not in text]
    write("rwkv.json", {"metadata": metadata, "cases": cases(Llama(metadata), texts)})
    tokens = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", "<|plamo:pad|>"] + [
        f"<0x{b:02X}>" for b in range(256)
    ]
    pieces = [
        "a",
        "b",
        "ab",
        "e",
        "th",
        "the",
        " the",
        " ",
        "Hello",
        "lo",
        "l",
        "o",
        "w",
        "wor",
        "world",
        "r",
        "d",
        "中",
        "中文",
        "é",
        "  ",
    ]
    scores = [0.0] * len(tokens) + [-(3.0 + (7 * i) % 11 + 0.25 * len(p)) for i, p in enumerate(pieces)]
    metadata = {
        "tokenizer.ggml.model": "plamo2",
        "tokenizer.ggml.tokens": tokens + pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3, 3] + [6] * 256 + [1] * len(pieces),
    }
    write("plamo2.json", {"metadata": metadata, "cases": cases(Llama(metadata))})


def write_tokenizer(name, tokenizer):
    tokenizer.save(str(HERE / f"{name}.tokenizer.json"), pretty=False)
    found = []
    for special in (False, True):
        tokenizer.encode_special_tokens = not special
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            found.append(
                {
                    "special": special,
                    "text": text,
                    "ids": ids,
                    "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                }
            )
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    write(f"{name}.cases.json", {"framed_a": framed, "cases": found})


def make_tokenizer_json():
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

    def byte_level(pre):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
        tokenizer.train_from_iterator(
            LINES * 4,
            trainers.BpeTrainer(
                vocab_size=600,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                special_tokens=special,
                show_progress=False,
            ),
        )
        return tokenizer

    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = byte_level(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_tokens([AddedToken("<u>", special=False, normalized=False)])
    write_tokenizer("byte_level", tokenizer)

    tokenizer = byte_level(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\p{N}"), "removed", invert=False),
                pre_tokenizers.Split(Regex(r"(?<=a)b"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=True),
            ]
        )
    )
    write_tokenizer("prefix_space", tokenizer)

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        LINES * 4,
        trainers.BpeTrainer(
            vocab_size=800,
            limit_alphabet=150,
            special_tokens=special + byte_tokens,
            show_progress=False,
            max_token_length=9,
        ),
    )
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in byte_tokens]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="$A $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    write_tokenizer("byte_fallback", tokenizer)

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        LINES * 4,
        trainers.WordPieceTrainer(
            vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
        ),
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    write_tokenizer("word_piece", tokenizer)


if __name__ == "__main__":
    make_bpe()
    make_sentencepiece()
    make_wordpiece()
    make_rwkv_and_plamo2()
    make_tokenizer_json()
