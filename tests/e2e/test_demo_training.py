"""The training of the demo model: its pieces, its files, and that a stopped run goes on as if it hadn't."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax
from oracles import import_oracles, randomize

from ltx_run.safetensors import SafetensorsFile
from ltxbuild.components import COMPONENTS
from ltxbuild.model import audio_encoder, transformer, video_decoder
from ltxbuild.model.adaln import uniform
from ltxbuild.model.params import tree
from ltxbuild.model.positions import rope_tables
from ltxbuild.weights.checkpoint import Checkpoint, read_config, validate
from ltxbuild.weights.sharder import arranged
from tools.train_demo import (
    additive,
    audio_vae,
    captions,
    curves,
    data,
    diffusion,
    export,
    loop,
    text,
    tokenizer,
    video_vae,
    world,
)
from tools.train_demo.config import model_config, sections
from tools.train_demo.gradients import fast_gradients
from tools.train_demo.mel import log_mel
from tools.train_demo.mosaic import draw_mosaic
from tools.train_demo.weights import checkpoint_tensors, initial

CONFIG = model_config()
PADDINGS: list[tuple[Any, tuple[int, int], tuple[int, ...]]] = [
    (((1, 1), (1, 1)), (1, 1), (3, 3, 3, 5)),
    (((2, 0), (1, 1)), (1, 1), (3, 3, 3, 5)),
    (((0, 0), (3, 3)), (1, 3), (1, 3, 3, 5)),
]


@pytest.mark.parametrize(("padding", "dilation", "shape"), PADDINGS)
def test_the_faster_gradient_is_the_gradient(
    padding: Any, dilation: tuple[int, int], shape: tuple[int, ...]
) -> None:
    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(1, 1),
            padding=padding,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(jnp.sin(y))

    x, kernel = (
        jax.random.normal(jax.random.key(0), (2, 7, 9, 3)),
        jax.random.normal(jax.random.key(1), shape),
    )
    plain = jax.grad(total, (0, 1))(x, kernel)
    with fast_gradients():
        fast = jax.grad(total, (0, 1))(x, kernel)
    for ours, theirs in zip(fast, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two saves; the last save counts, and the end is bit for bit the same."""

    def loss(params: dict[str, Any], key: jax.Array) -> jax.Array:
        return jnp.sum((params["weight"] - jax.random.normal(key, (3,))) ** 2)

    start = {"weight": np.zeros(3, np.float32)}
    whole = loop.train(loop.Run("whole", tmp_path, 60, 0.1), start, loss)
    monkeypatch.setattr(loop, "SAVE_EVERY", 10)
    monkeypatch.setattr(loop, "_report", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(loop.Run("parts", tmp_path, 60, 0.1), start, loss)
    monkeypatch.undo()
    parts = loop.train(loop.Run("parts", tmp_path, 60, 0.1), start, loss)
    np.testing.assert_array_equal(parts["weight"], whole["weight"])
    assert not np.array_equal(parts["weight"], start["weight"])


def stop(*_: Any) -> None:
    """Control-C at the first report, after the first save."""
    raise KeyboardInterrupt


def test_weights_go_back_into_the_checkpoint_s_layout() -> None:
    """Numbered tensors: each is where it was, for every component and every change of layout."""
    for component in COMPONENTS.values():
        table = component.table(CONFIG)
        numbered = {
            key: np.arange(np.prod(spec.source_shape), dtype=np.float32).reshape(spec.source_shape) + i
            for spec in table
            for i, key in enumerate(spec.sources)
        }
        flat = {}
        for spec in table:
            layers = [arranged(numbered[key], spec) for key in spec.sources]
            flat[spec.name] = np.stack(layers) if spec.stacked else layers[0]
        found = checkpoint_tensors(table, tree(flat))
        assert found.keys() == numbered.keys()
        for key, tensor in numbered.items():
            np.testing.assert_array_equal(found[key], tensor, err_msg=key)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a model that has learned nothing yet."""
    folder = tmp_path_factory.mktemp("exported")
    tokens = folder / "tokenizer.json"
    tokenizer.save(tokens, CONFIG.gemma.vocab_size)
    params = {name: initial(part.table(CONFIG), 0, {}) for name, part in COMPONENTS.items()}
    export.write(params, CONFIG, tokens, folder)
    return folder


def test_files_are_a_whole_official_checkpoint(exported: Path) -> None:
    """Nothing missing, nothing left over, configurations that agree, under 30 MB."""
    files = Checkpoint(exported / export.MODEL, exported / export.GEMMA, exported / export.UPSAMPLER)
    config = read_config(files)
    assert config == CONFIG
    validate(files, {name: part.table(config) for name, part in COMPONENTS.items()})
    assert sum(path.stat().st_size for path in exported.rglob("*") if path.is_file()) < 30_000_000


def test_every_word_is_a_token(exported: Path) -> None:
    texts = [world.caption(names) for names in world.all_names()]
    tokens, mask = tokenizer.token_ids(exported / "gemma/tokenizer.json", texts, 16)
    assert mask.sum(axis=1).tolist() == [1 + len(text.split()) for text in texts]
    assert tokens.max() < CONFIG.gemma.vocab_size


def test_captions_fit_what_is_drawn() -> None:
    """What a caption names is so in all its videos; a tone that isn't named follows the movement."""
    drawn, names = captions.draw(jax.random.key(0), 64, 4), world.all_names()
    chosen = [names[i] if i < len(names) else world.Names() for i in np.asarray(drawn.caption)]
    for wanted, scenes, tunes in zip(chosen, np.asarray(drawn.scene), np.asarray(drawn.tune), strict=True):
        for scene, tune in zip(scenes, tunes, strict=True):
            found = data.SCENES[scene]
            assert not world.is_held_out(*found)
            assert all(want in (None, got) for want, got in zip(wanted[:3], found, strict=True))
            follows = world.FOLLOWS[list(world.DIRECTIONS)[found[2]]]
            assert tune == (list(world.TUNES).index(follows) if wanted.tune is None else wanted.tune)
    assert len(set(chosen)) > 1


def test_mixtures_are_of_colours_that_training_sees() -> None:
    """The other caption differs in its colour alone, and so do its videos; none of them is held out."""
    drawn, names = captions.draw(jax.random.key(0), 64, 2), [*world.all_names(), world.Names()]
    mixture = jax.tree.map(np.asarray, captions.mixed(jax.random.key(1), drawn))
    first, second = mixture.first, mixture.second
    for one, other, scenes, others in zip(
        first.caption, second.caption, first.scene, second.scene, strict=True
    ):
        assert names[one][1:] == names[other][1:]
        assert (names[one].colour is None) == (names[other].colour is None)
        for scene, found in zip(scenes, others, strict=True):
            assert data.SCENES[scene][1:] == data.SCENES[found][1:]
            assert not world.is_held_out(*data.SCENES[found])
            assert names[other].colour in (None, data.SCENES[found][0])
    assert 0 < np.mean(first.caption != second.caption) < 1
    assert 0 < np.mean(mixture.share > 0) < 1
    np.testing.assert_array_equal(mixture.of(lambda d: d.tune), first.tune)


@pytest.fixture(scope="module")
def codes() -> video_vae.Codes:
    """What the video autoencoder learns from."""
    return video_vae.principal_codes(CONFIG.ltx.vae.latent_channels)


def test_codes_hold_the_coarse_picture(codes: video_vae.Codes) -> None:
    """All but a twentieth, at both sizes; and a video's first code is that of its first frame alone."""
    scene = world.Scene(3, 2, 1, np.asarray([0.03, 0.02], np.float32))

    @partial(jax.jit, static_argnums=0)
    def drawn(size: tuple[int, int]) -> tuple[jax.Array, ...]:
        clip = world.frames(scene, *size)
        return (
            video_vae.coarse(clip),
            video_vae.model_code(clip, codes),
            video_vae.model_code(clip[:1], codes),
        )

    for size in (world.STAGE_1, world.STAGE_2):
        wanted, code, first = (np.asarray(x) for x in drawn(size))
        found = np.moveaxis(code[0], 0, -1) @ codes.components + codes.mean
        assert np.mean((found - wanted) ** 2) < 0.05 * np.mean((wanted - codes.mean) ** 2)
        np.testing.assert_allclose(first, code[:, :, :1], atol=1e-5)


def test_every_caption_has_marks_of_its_own() -> None:
    """Of mean square one; a thing that two captions name alike has the same mark in both."""
    marks, names = text.marks(128), [*world.all_names(), world.Names()]
    np.testing.assert_allclose(np.mean(marks**2, axis=1), 1, rtol=1e-5)
    shared = (marks > 0).astype(int) @ (marks > 0).astype(int).T
    for index in (0, 100, 559):
        same = [sum(a == b for a, b in zip(names[index], other, strict=True)) for other in names]
        np.testing.assert_array_equal(shared[index], same)


def velocities(params: dict[str, Any]) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    """Noise for video and sound, and what a transformer that reads no text makes of it."""
    config = CONFIG.ltx.transformer
    geometry = data.geometry(world.STAGE_1)
    noise = [
        jax.random.normal(jax.random.key(i), (1, tokens, channels))
        for i, (tokens, channels) in enumerate(
            ((geometry.tokens, config.in_channels), (geometry.audio, config.audio_in_channels))
        )
    ]
    context = [jnp.zeros((1, 4, config.video_dim)), jnp.zeros((1, 4, config.audio_dim))]
    times = uniform(jnp.ones(1))
    ropes = rope_tables(config, geometry, jnp.float32)
    run = jax.jit(
        lambda params: transformer.velocity(params, *noise, *context, times, times, ropes, config=config)
    )
    return noise, run(params)


def test_noise_goes_through_an_untrained_transformer() -> None:
    """At first the prediction is the noise: what is left to learn is the latent."""
    for expected, velocity in zip(*velocities(diffusion.start(CONFIG)), strict=True):
        alike = jnp.sum(velocity * expected) / jnp.sqrt(jnp.sum(velocity**2) * jnp.sum(expected**2))
        assert alike > 0.7


def test_unlike_gates_change_nothing() -> None:
    """But what is read where: gates differ, and no video."""
    params = initial(transformer.params(CONFIG.ltx.transformer), 0, {})
    changed = diffusion.with_unlike_gates(params)
    for name, rows in diffusion.GATE_ROWS.items():
        gates = [changed["blocks"][modality][name][:, rows] for modality in ("video", "audio")]
        before = [params["blocks"][modality][name][:, rows] for modality in ("video", "audio")]
        np.testing.assert_array_equal(gates[0], 2 * before[0])
        np.testing.assert_array_equal(gates[1], before[1] / 2)
    for before, after in zip(velocities(params)[1], velocities(changed)[1], strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_decoder_starts_with_the_coarse_picture(codes: video_vae.Codes) -> None:
    """Before any training its result is nearer to the right frames than to those of any other scene."""
    config = CONFIG.ltx.vae
    decoder = video_vae.start(video_decoder.params(config), codes)
    draw_mosaic(decoder, np.asarray(codes.mean), np.asarray(codes.components))
    decode = jax.jit(
        lambda clip: video_decoder.decode(
            decoder, video_vae.normalised(video_vae.model_code(clip, codes), codes), config
        )
    )
    scenes = [world.Scene(colour, 1, colour, np.zeros(2, np.float32)) for colour in range(2)]
    draw = jax.jit(lambda scene: world.frames(scene, *world.STAGE_1))
    clips = [draw(scene) for scene in scenes]
    for index, clip in enumerate(clips):
        found = decode(clip)
        apart = [float(jnp.mean((found - other) ** 2)) for other in clips]
        assert int(np.argmin(apart)) == index
        assert apart[index] < 0.7 * float(jnp.mean((clip - jnp.asarray(world.BACKGROUND)) ** 2))


def test_loudness_of_notes_is_linear_in_a_spectrogram() -> None:
    mel = np.stack([np.asarray(log_mel(world.waveform(tune, 0.4))) for tune in range(3)])
    frames = np.stack([np.asarray(world.waveform(tune, 0.4)).reshape(-1, world.HOP) for tune in range(3)])
    time = np.arange(world.HOP) / world.SAMPLE_RATE
    loudness = frames @ np.sin(2 * np.pi * np.outer(additive.NOTES, time)).T * (2 / world.HOP)
    weight, bias = additive.fit_loudness(mel, loudness, 7)
    padded = np.pad(mel, ((0, 0), (3, 3), (0, 0)))
    found = sum(padded[:, tap : tap + mel.shape[1]] @ weight[tap] for tap in range(7)) + bias
    assert np.mean((found - loudness) ** 2) < 0.1 * np.mean(loudness**2)


def test_the_audio_encoder_is_the_official_one() -> None:
    """The project has no such function: the one that is trained is held against the official module."""
    import_oracles()
    from ltx_core.model.audio_vae.model_configurator import AudioEncoderConfigurator

    official = AudioEncoderConfigurator.from_config(sections()["ltx"])
    randomize(official)
    state = {key: value.float().numpy() for key, value in official.state_dict().items()}
    flat = {}
    for spec in audio_encoder.params(CONFIG.ltx.audio_vae):
        (key,) = spec.sources
        flat[spec.name] = arranged(state[key.removeprefix("audio_vae.encoder.")], spec)
    mel = np.random.Generator(np.random.Philox(0)).standard_normal((1, 2, 17, 64), dtype=np.float32)
    means = state["per_channel_statistics.mean-of-means"].reshape(1, -1, 1, 16)
    deviations = state["per_channel_statistics.std-of-means"].reshape(1, -1, 1, 16)
    found = audio_vae.encode(tree(flat), jnp.asarray(mel), CONFIG.ltx.audio_vae)
    with torch.no_grad():
        wanted = official(torch.from_numpy(mel)).numpy() * deviations + means
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_written_files_are_what_was_trained(exported: Path) -> None:
    """A tensor in bf16, one in f32."""
    file = SafetensorsFile(exported / export.MODEL)
    table = COMPONENTS["transformer"].table(CONFIG)
    tensors = checkpoint_tensors(table, initial(table, 0, {}))
    rows = "model.diffusion_model.transformer_blocks.1.scale_shift_table"
    np.testing.assert_array_equal(file.view(rows), tensors[rows])
    weight = "model.diffusion_model.transformer_blocks.1.ff.net.2.weight"
    np.testing.assert_allclose(file.view(weight).astype(np.float32), tensors[weight], rtol=2**-8)


def test_loss_curves_are_drawn(tmp_path: Path) -> None:
    """From the first loss at the top to the smallest at the bottom; a directory without curves is refused."""
    with pytest.raises(ValueError, match="no loss curves"):
        curves.picture(tmp_path)
    for name, losses in (("first", (4.0, 2.0, 1.0)), ("second", (3.0, 3.0))):
        rows = [json.dumps({"step": 20 * (i + 1), "loss": loss}) for i, loss in enumerate(losses)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    image = ElementTree.fromstring(curves.picture(tmp_path))
    lines = [element.get("points") for element in image.iter() if element.tag.endswith("polyline")]
    assert lines == ["73.3,0.0 146.7,45.0 220.0,90.0", "110.0,0.0 220.0,0.0"]
