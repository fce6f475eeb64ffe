"""The tokenizer of a Hugging Face folder: read from tokenizer.json, or from vocab.txt as BERT's, and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sslcli.console import escape
from sslcli.data.text.library import LibraryTokenizer, library
from sslcli.data.text.preprocessor import MAX_LENGTH, TextPreprocessor
from sslcli.data.text.tokenizer import BytesTokenizer
from sslcli.data.text.words import WordsTokenizer
from sslcli.errors import DataError, RequestError
from sslcli.formats.huggingface.config import BertSizes
from sslcli.formats.huggingface.files import MAX_TOKENIZER, exists, read_bytes, read_optional
from sslcli.formats.huggingface.vocabularies import bytes_tokenizer, words_tokenizer

TOKENIZER, CONFIG, SPECIAL_TOKENS, VOCABULARY = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
TOKENIZER_FILES = (TOKENIZER, CONFIG, SPECIAL_TOKENS)
OTHERS = ("sentencepiece.bpe.model", "spiece.model", "vocab.json")
ROLES = {
    "pad": "pad_token",
    "unknown": "unk_token",
    "start": "cls_token",
    "separator": "sep_token",
    "mask": "mask_token",
}


# ------------------------------------------------------------------------------------------------------------------- read


def read_tokenizer(folder: Path, length: int, sizes: BertSizes) -> TextPreprocessor:
    """The preprocessor of a folder, with views of `length` tokens. RequestError where its tokenizer is not supported, DataError
    where it does not fit the network."""
    if exists(folder, TOKENIZER):
        name, content = TOKENIZER, read_bytes(folder, TOKENIZER, MAX_TOKENIZER)
    elif exists(folder, VOCABULARY):
        name, content = VOCABULARY, from_vocabulary(folder)
    else:
        other = [n for n in OTHERS if exists(folder, n)]
        raise RequestError(
            f"{escape(str(folder))} has no {TOKENIZER} and no {VOCABULARY}"
            + (f": {other[0]} is not read" if other else ""),
            "transformers writes tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    path = escape(str(folder / name))
    try:
        tokenizer = LibraryTokenizer(content)
    except ValueError as e:
        raise DataError(f"{path}: {e}") from None
    values = tokenizer.values
    if tokenizer.size > sizes.vocabulary:
        raise DataError(
            f"{path} has {tokenizer.size:,} tokens, and the embedding of config.json {sizes.vocabulary:,} rows",
            "tokenizer and weights must be of one model",
        )
    if sizes.pad is not None and values.pad != sizes.pad:
        raise DataError(f"{path} pads with the id {values.pad}, and pad_token_id of config.json is {sizes.pad}")
    return TextPreprocessor(tokenizer, length)


def longest_input(folder: Path) -> int | None:
    """`model_max_length` of tokenizer_config.json; None where there is none, for which transformers writes a huge number."""
    value = read_optional(folder, CONFIG).get("model_max_length")
    return value if isinstance(value, int) and 3 <= value <= MAX_LENGTH else None


def from_vocabulary(folder: Path) -> bytes:
    """The tokenizer.json of BERT's tokenizer (Devlin et al., `tokenization.py`) with the vocabulary in vocab.txt, one token a line,
    and the options in tokenizer_config.json."""
    path = escape(str(folder / VOCABULARY))
    try:
        text = read_bytes(folder, VOCABULARY, MAX_TOKENIZER).decode()
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8: byte {e.start:,}") from None
    tokens = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
        raise DataError(f"{path} has the token {escape(twice)[:80]!r} twice")
    config = read_optional(folder, CONFIG)
    names = {role: _name(config, key) for role, key in ROLES.items()}
    if missing := [name for name in names.values() if name not in ids]:
        raise DataError(f"{path} has no token {escape(missing[0])[:80]}")
    tokenizers = library()
    out = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(ids, unk_token=names["unknown"], max_input_chars_per_word=100)
    )
    accents = config.get("strip_accents")
    out.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars") is not False,
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=config.get("do_lower_case") is not False,
    )
    out.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    out.decoder = tokenizers.decoders.WordPiece()
    _add_special(out, [names[role] for role in ROLES])
    _add_template(out, names["start"], names["separator"])
    return str(out.to_str()).encode()


def _name(config: dict[str, Any], key: str) -> str:
    """The name of a special token, which tokenizer_config.json may write as an object."""
    value = config.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else f"[{key.partition('_')[0].upper()}]"


# ------------------------------------------------------------------------------------------------------------------ write


def write_tokenizer(preprocessor: TextPreprocessor) -> dict[str, str]:
    """The files of the tokenizer by name, which AutoTokenizer of transformers loads."""
    tokenizer, values = preprocessor.tokenizer, preprocessor.values
    if isinstance(tokenizer, LibraryTokenizer):
        out = library().Tokenizer.from_str(tokenizer.content.decode())
    elif isinstance(tokenizer, BytesTokenizer):
        out = bytes_tokenizer(tokenizer)
    elif isinstance(tokenizer, WordsTokenizer):
        out = words_tokenizer(tokenizer)
    else:
        raise RequestError(f"the tokenizer {tokenizer.kind} cannot be written as {TOKENIZER}", "leave format out")
    ids = {"pad": values.pad, "unknown": tokenizer.unknown, "start": values.start, "separator": values.separator}
    ids["mask"] = values.mask
    names = {ROLES[role]: out.id_to_token(i) for role, i in ids.items() if i is not None}
    out.no_truncation()
    out.no_padding()
    _add_special(out, list(names.values()))
    _add_template(out, names["cls_token"], names["sep_token"])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": preprocessor.max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **names,
    }
    contents = {CONFIG: config, SPECIAL_TOKENS: names}
    texts = {name: json.dumps(content, indent=2, ensure_ascii=True) + "\n" for name, content in contents.items()}
    return {TOKENIZER: out.to_str(pretty=True), **texts}


def _add_special(out: Any, names: list[str]) -> None:
    tokens = library()
    out.add_special_tokens([tokens.AddedToken(name, normalized=False, special=True) for name in names])


def _add_template(out: Any, start: str, separator: str) -> None:
    """[CLS] A [SEP], or [CLS] A [SEP] B [SEP] with segments 0 and 1."""
    out.post_processor = library().processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {separator}:0",
        pair=f"{start}:0 $A:0 {separator}:0 $B:1 {separator}:1",
        special_tokens=[(name, out.token_to_id(name)) for name in (start, separator)],
    )
