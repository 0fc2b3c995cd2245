"""A Gemma tokenizer for the grammar: bytes, and merges that make one token of each of its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ltx_run.plan import Tokenize
from ltx_run.tokens import PromptTokenizer, padded
from ltxbuild.synthetic.gemma_directory import IMAGE_TOKENS, SPECIAL
from tools.train_demo import world


def tokenizer_json(vocabulary: int) -> dict[str, Any]:
    """`tokenizer.json`: special tokens 0 to 3, then bytes, then what the captions' words are merged from.

    Args:
        vocabulary: Number of ids; the last three are Gemma's image tokens.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(IMAGE_TOKENS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(world.caption(names) for names in world.all_names()), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in IMAGE_TOKENS.values()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    return data


def save(path: Path, vocabulary: int) -> None:
    """Write `tokenizer_json`."""
    path.write_text(json.dumps(tokenizer_json(vocabulary), indent=1) + "\n", encoding="utf-8")


def token_ids(path: Path, prompts: list[str], length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ids and validity `[N, length]`, as `ltx-run` makes them."""
    step = Tokenize((), (), length=length, bos=2, pad=0)
    reader = PromptTokenizer(path)
    return padded([reader.ids(prompt, step, negative=True) for prompt in prompts], step)
