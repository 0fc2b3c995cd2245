"""The README of a remote."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import yaml
from sharing import two_variants

from ltx_cache.store import Store
from ltx_run.bundle import Bundle, blobs, encode
from ltx_run.console import human_bytes
from ltxbuild.bundles.card import BEGIN, END, card, described, updated

URL = "hf://org/repo"


@pytest.fixture
def bundle(store: Store) -> Bundle:
    """A bundle of two variants."""
    return msgspec.structs.replace(two_variants(store), provenance={"jaxlib": "0.10.2"})


def rows(text: str) -> Iterator[list[str]]:
    """Cells of the table."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_bundle_is_described(bundle: Bundle, store: Store) -> None:
    """Platform, variants with their sizes, whole size, how to run, licence."""
    tpu = two_variants(store, "chip", "tpu")
    text = described(URL, {"two": encode(bundle), "chip": encode(tpu)})
    (chip, two) = rows(text)
    assert chip[:2] == ["`chip`", "1 tpu (jaxlib 0)"]
    size = sum(blob.size for blob in blobs(bundle))
    alone = size - bundle.programs["large"].executable.size
    assert f"small: 192x128, 17 frames at 24 fps ({human_bytes(alone)})" in two[2]
    assert two[3] == human_bytes(size)
    assert "ltx-run 'hf://org/repo#chip' --prompt" in text
    assert "* jaxlib: 0.10.2" in text
    assert "licences of their own" in text


def test_a_new_card_has_metadata(bundle: Bundle) -> None:
    """The Hub's are read as YAML."""
    text = card(URL)(None, {"two": encode(bundle)})
    metadata = yaml.safe_load(text.split("---")[1])
    assert (metadata["library_name"], metadata["license"]) == ("ltxbuild", "other")


def test_what_people_wrote_stays(bundle: Bundle) -> None:
    """Only the generated part changes; making it again changes nothing."""
    by_hand = "# Ours\n\nRead this first.\n"
    first = card(URL)(by_hand, {"two": encode(bundle)})
    assert first.startswith(by_hand)
    more = first.replace(END, END + "\nand this last")
    second = card(URL)(more, {"two": encode(bundle), "three": encode(bundle)})
    assert second.startswith(by_hand)
    assert second.endswith("and this last\n")
    assert second.count(BEGIN) == second.count(END) == 1
    assert card(URL)(first, {"two": encode(bundle)}) == first
    assert updated(f"only the {BEGIN} begin", "text").count("text") == 1


def test_a_manifest_of_others_breaks_nothing(bundle: Bundle) -> None:
    """One that can't be read is named; what is written into others stays text."""
    evil = "</table>\n\n# Free |`x`|<script>"
    hostile = msgspec.structs.replace(
        bundle,
        provenance={evil: evil},
        recipe={"pipeline": evil, "precision": [evil] * 100_000},
        variants={evil: bundle.variants["small"]},
        programs={},
    )
    text = described(URL, {"bad": b'{"schema":99}', "evil": encode(hostile)})
    assert [row[1] for row in rows(text)] == ["made by another version", "0  ()"]
    assert "<script" not in text
    assert "\n# Free" not in text
    assert "incomplete" in text
    assert len(text) < 5000
