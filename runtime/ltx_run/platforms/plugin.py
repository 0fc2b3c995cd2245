"""Platforms whose runtime is a PJRT plugin: a shared library from a package beside jaxlib.

What they have in common: which packages an executable needs, the client, and which devices must be there. An
executable is for one kind of device and, if it spans several, for one way in which they are connected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.errors import DeviceUnavailable
from ltx_run.peers import Peers
from ltx_run.platforms import Obstacle

Options = Mapping[str, str | int | bool | float]


@dataclass(frozen=True)
class Plugin:
    """A platform of this sort.

    Attributes:
        platform: Its name, here and in jaxlib.
        devices: What its devices are called in messages.
        extra: Extra of this project that installs the plugin.
        whole: Whether a program that spans several devices needs all there are, since it knows their network.
        library: Finds the plugin; None if it is not installed.
        attached: Whether the machine has such a device, without starting the runtime, which can take minutes
            to find out.
        options: Of the client, among peers.
    """

    platform: str
    devices: str
    extra: str
    whole: bool
    library: Callable[[], Path | None]
    attached: Callable[[], bool]
    options: Callable[[Peers], Options]


def obstacles(plugin: Plugin, needed: Fingerprint, peers: Peers) -> tuple[Obstacle, ...]:
    """Why this machine can't run code for a platform; devices are looked for if all packages are right."""
    found = _unnamed(needed) or _of_packages(plugin, needed)
    if found:
        return found
    try:
        kinds = _kinds(plugin, needed, peers)
    except DeviceUnavailable as error:
        return (Obstacle(error.message, error.hint or _elsewhere(plugin)),)
    return _of_devices(plugin, needed, kinds, needed.features[0])


def native(plugin: Plugin, needed: Fingerprint, peers: Peers) -> Fingerprint | tuple[Obstacle, ...]:
    """What a program is compiled for here whose executable has that fingerprint; or why it can't be."""
    if unnamed := _unnamed(needed):
        return unnamed
    if plugin.library() is None:
        return (_uninstalled(plugin, needed),)
    try:
        kinds = _kinds(plugin, needed, peers)
    except DeviceUnavailable as error:
        return (Obstacle(error.message, error.hint or _elsewhere(plugin)),)
    packages = [each.partition(" ")[0] for each in needed.runtime.split(", ")]
    return _of_devices(plugin, needed, kinds, kinds[0]) or Fingerprint(
        platform=plugin.platform,
        runtime=", ".join(f"{package} {_version(package)}" for package in packages),
        features=(kinds[0], f"{len(kinds)} devices"),
        devices=needed.devices,
    )


def _unnamed(needed: Fingerprint) -> tuple[Obstacle, ...]:
    """A fingerprint that doesn't say what it is for; no compiler writes one."""
    if needed.features and needed.devices > 0 and all(each.strip() for each in needed.runtime.split(", ")):
        return ()
    what = f"runtime {needed.runtime!r}, {needed.devices} devices of kind {list(needed.features)}"
    reason = f"its fingerprint for {needed.platform} is incomplete: {what}"
    return (Obstacle(reason, "build the bundle again: ltxbuild compile RECIPE"),)


def _of_packages(plugin: Plugin, needed: Fingerprint) -> tuple[Obstacle, ...]:
    """Packages that are missing or of another version than the executable was compiled with."""
    if plugin.library() is None:
        return (_uninstalled(plugin, needed),)
    reasons = []
    for each in needed.runtime.split(", "):
        package, _, wanted = each.partition(" ")
        installed = _version(package)
        if installed != wanted:
            reasons.append(f"it is compiled with {each}, installed is {installed or 'none'}")
    pins = " ".join(f"'{each.replace(' ', '==')}'" for each in needed.runtime.split(", "))
    return tuple(Obstacle(reason, f"pip install {pins}") for reason in reasons)


def _uninstalled(plugin: Plugin, needed: Fingerprint) -> Obstacle:
    reason = f"it needs {needed.runtime}, and the plugin for {plugin.platform} is not installed"
    return Obstacle(reason, f"pip install 'ltxbuild[{plugin.extra}]'")


def _kinds(plugin: Plugin, needed: Fingerprint, peers: Peers) -> list[str]:
    """The kind of each device; at least one.

    Raises:
        DeviceUnavailable: There is none, or the runtime can't be started.
    """
    if not plugin.attached():
        raise DeviceUnavailable(
            f"it is compiled for {_described(needed)}, this machine has no {plugin.devices}"
        )
    return [device.device_kind for device in client(plugin, peers).devices()]


def _of_devices(plugin: Plugin, needed: Fingerprint, kinds: list[str], kind: str) -> tuple[Obstacle, ...]:
    """Devices of another kind, too few of them, or more than the executable's network has."""
    enough = needed.devices <= len(kinds)
    exact = needed.devices in (1, len(kinds)) or not plugin.whole
    if enough and exact and set(kinds) == {kind}:
        return ()
    here = f"this machine has {len(kinds)} of kind {', '.join(sorted(set(kinds)))}"
    return (Obstacle(f"it is compiled for {_described(needed)}, {here}", _elsewhere(plugin)),)


def _described(needed: Fingerprint) -> str:
    """What the executable is for: number and kind of devices, and their topology."""
    kind, *topology = needed.features
    return f"{needed.devices} of kind {kind}" + (f" ({', '.join(topology)})" if topology else "")


def _elsewhere(plugin: Plugin) -> str:
    return f"run it where such a {plugin.devices} is, or build it for what is here: ltxbuild compile RECIPE"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def client(plugin: Plugin, peers: Peers) -> Any:
    """The platform's client; it takes the devices for this process until it ends.

    Raises:
        DeviceUnavailable: The plugin can't be started; the plugin's own words say why.
    """
    from ltx_run import clients

    library = plugin.library()
    assert library is not None, "obstacles() comes first"
    try:
        return clients.plugin(plugin.platform, library, plugin.options(peers), peers)
    except Exception as error:
        raise DeviceUnavailable(
            f"{plugin.platform} can't be started: {error}",
            hint=f"is another program using the {plugin.devices}? {plugin.library()}",
        ) from error


def devices(plugin: Plugin, peers: Peers) -> Devices:
    """The platform's devices."""
    from ltx_run import pjrt

    return pjrt.Devices(client(plugin, peers))
