"""Prompts to tokens: the rules of the official text path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from ltx_run.errors import BadPrompt, BundleInvalid
from ltx_run.plan import Tokenize
from ltx_run.tokens import PromptTokenizer, padded

STEP = Tokenize(inputs=("prompt",), outputs=("tokens", "mask"), length=6, bos=1, pad=0)


def saved(folder: Path, *, adds_bos: bool = False, cuts: bool = False) -> PromptTokenizer:
    """The toy tokenizer, read back from a file."""
    tokenizer = Tokenizer.from_str(toy.tokenizer().decode())
    if adds_bos:
        tokenizer.post_processor = TemplateProcessing(single="[bos] $A", special_tokens=[("[bos]", 1)])
    if cuts:
        tokenizer.enable_truncation(2)
        tokenizer.enable_padding(length=9)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return PromptTokenizer(path)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_bos_comes_first_exactly_once(tmp_path: Path, adds_bos: bool) -> None:
    """BOS leads, whether or not the tokenizer adds it; nothing is added at the end."""
    tokenizer = saved(tmp_path, adds_bos=adds_bos)
    assert tokenizer.ids("a red ball", STEP) == [1, 2, 3, 4]


def test_prompt_is_stripped(tmp_path: Path) -> None:
    """White space around the prompt doesn't count."""
    tokenizer = saved(tmp_path)
    assert tokenizer.ids(" \n a red \t", STEP) == tokenizer.ids("a red", STEP)


def test_settings_of_the_file_do_not_cut_or_pad(tmp_path: Path) -> None:
    """Truncation and padding written into the tokenizer file are switched off."""
    assert saved(tmp_path, cuts=True).ids("a red ball", STEP) == [1, 2, 3, 4]


def test_longest_prompt(tmp_path: Path) -> None:
    """BOS and five words fill six tokens; a sixth word is refused with both numbers."""
    tokenizer = saved(tmp_path)
    assert len(tokenizer.ids("a red ball rolls left", STEP)) == 6
    with pytest.raises(BadPrompt, match=r"has 7 tokens, .* at most 6"):
        tokenizer.ids("a red ball rolls to left", STEP)


def test_empty_prompt_is_refused(tmp_path: Path) -> None:
    """White space alone is no prompt."""
    with pytest.raises(BadPrompt, match="empty"):
        saved(tmp_path).ids("  \n", STEP)


def test_a_negative_prompt_may_be_empty(tmp_path: Path) -> None:
    """Nothing that the video shall not be like: the first token alone. Too long it may not be."""
    tokenizer = saved(tmp_path)
    assert tokenizer.ids(" ", STEP, negative=True) == [1]
    with pytest.raises(BadPrompt, match="the negative prompt has 7 tokens"):
        tokenizer.ids("a red ball rolls to left", STEP, negative=True)


def test_padding_is_on_the_left() -> None:
    """Ids end at the right edge, the mask marks them, dtypes are those of the plan; a prompt is a row."""
    tokens, mask = padded([(1, 2, 3), (1,)], STEP)
    assert tokens.tolist() == [[0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1]]
    assert mask.tolist() == [[False, False, False, True, True, True], [False] * 5 + [True]]
    assert (tokens.dtype, mask.dtype) == (np.dtype(np.int32), np.dtype(np.bool_))


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is no tokenizer is named."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleInvalid, match=r"tokenizer\.json"):
        PromptTokenizer(tmp_path / "tokenizer.json")
