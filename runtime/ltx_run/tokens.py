"""Prompt to token ids: the tokenizer file's own rules, a first BOS, padding on the left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ltx_run.errors import BadPrompt, BundleInvalid
from ltx_run.plan import Tokenize


class PromptTokenizer:
    """A tokenizer read from `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            BundleInvalid: It is not a tokenizer.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise BundleInvalid(f"{path}: not a tokenizer: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids(self, prompt: str, step: Tokenize, *, negative: bool = False) -> list[int]:
        """Token ids of the stripped prompt, BOS first, no end token, not padded.

        Args:
            prompt: The text.
            step: Says what programs take.
            negative: Whether it says what the video shall not be like; it may be empty then.

        Raises:
            BadPrompt: The prompt is empty, or longer than the programs take. Cutting it would drop words
                that the user asked for.
        """
        text, what = prompt.strip(), "negative prompt" if negative else "prompt"
        if not text and not negative:
            raise BadPrompt("the prompt is empty", hint='describe the video: --prompt "a red ball rolls"')
        ids = list(self._tokenizer.encode(text).ids)
        if not ids or ids[0] != step.bos:
            ids.insert(0, step.bos)
        if len(ids) > step.length:
            raise BadPrompt(
                f"the {what} has {len(ids)} tokens, the programs of this bundle take at most {step.length}",
                hint=f"shorten it by {len(ids) - step.length} tokens, roughly as many words",
            )
        return ids


def padded(prompts: Sequence[Sequence[int]], step: Tokenize) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ids int32 `[N, length]` and validity bool `[N, length]` of N prompts, padded on the left."""
    tokens = np.full((len(prompts), step.length), step.pad, np.int32)
    mask = np.zeros((len(prompts), step.length), np.bool_)
    for row, ids in enumerate(prompts):
        tokens[row, step.length - len(ids) :] = ids
        mask[row, step.length - len(ids) :] = True
    return tokens, mask
